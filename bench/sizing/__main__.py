"""Measure what a verdict leaves behind, or print the table of docs/operations.md from what was measured.

python -m bench.sizing --items 50000 --out bench/results/sizing.json       # some minutes
python -m bench.sizing --table
"""

import argparse
import json
import tempfile
from pathlib import Path

from bench.machine import describe_machine
from bench.queue.ground import ground
from bench.sizing.measure import measure
from bench.sizing.table import read, table


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.sizing", description=__doc__)
    parser.add_argument("--items", type=int, default=50_000)
    parser.add_argument("--out", type=Path)
    parser.add_argument(
        "--table", action="store_true", help="print the table from bench/results, measure nothing"
    )
    given = parser.parse_args()
    if given.table:
        print(table(read()))
        return
    with tempfile.TemporaryDirectory(prefix="vetline-sizing-") as name:
        Path(name).chmod(0o755)  # Postgres does not run as root
        with ground(Path(name) / "ground") as on:
            found = {"machine": describe_machine(), **measure(on, given.items)}
    shown = json.dumps(found, indent=2)
    print(shown)
    if given.out:
        given.out.write_text(shown + "\n")


if __name__ == "__main__":
    main()

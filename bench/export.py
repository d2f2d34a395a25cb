"""How fast verdicts leave the ledger as a file, and in how much memory.

Postgres makes the rows itself (generate_series). The export then runs as a person would type it, as a process of its
own, and the kernel says how much memory it took at most. The file is read back and counted by DuckDB.

    python -m bench.export --rows 1000000 --out bench/results/export.json
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.machine import describe_machine
from moderation.ledger.engine import open_ledger
from moderation.ledger.migrate import upgrade
from moderation.ledger.policies import seed_builtin
from moderation.services.postgres import LocalPostgres
from tests.support.many import judge_many

FORMS = ("parquet", "jsonl", "csv")
_READERS = {"parquet": "read_parquet", "jsonl": "read_json_auto", "csv": "read_csv_auto"}


@dataclass(frozen=True, slots=True)
class Measured:
    """One export. peak_mib: most resident memory of the whole process, interpreter and libraries included."""

    form: str
    rows: int
    seconds: float
    rows_per_s: float
    peak_mib: float
    file_mib: float


def measure_export(database_url: str, form: str, folder: Path) -> Measured:
    """One export by the command itself, timed from its start to its end."""
    file = folder / f"verdicts.{form}"
    start = time.monotonic()
    running = subprocess.Popen(
        [sys.executable, "-m", "moderation.cli", "verdicts", "--output", str(file)],
        env=os.environ | {"DATABASE_URL": database_url},
        stderr=subprocess.PIPE,
        text=True,
    )
    _, status, usage = os.wait4(running.pid, 0)
    seconds = time.monotonic() - start
    running.returncode = os.waitstatus_to_exitcode(status)
    assert running.stderr is not None
    said = running.stderr.read()
    running.stderr.close()
    if running.returncode:
        raise SystemExit(said)
    rows = _count(file, form)
    return Measured(
        form=form,
        rows=rows,
        seconds=round(seconds, 2),
        rows_per_s=round(rows / seconds),
        peak_mib=round(usage.ru_maxrss / 1024, 1),
        file_mib=round(file.stat().st_size / 2**20, 1),
    )


def _count(file: Path, form: str) -> int:
    """By a reader that is not ours, in a process of its own: Linux counts a parent's memory among a child's."""
    query = f"SELECT count(*) FROM {_READERS[form]}(?)"
    program = f"import duckdb, sys; print(duckdb.execute({query!r}, sys.argv[1:]).fetchone()[0])"
    said = subprocess.run(
        [sys.executable, "-c", program, str(file)], capture_output=True, text=True, check=True
    )
    return int(said.stdout)


def run(rows: int, forms: tuple[str, ...] = FORMS) -> dict[str, Any]:
    """Each form, over a Postgres of its own with fsync on."""
    # Postgres does not run as root: its account must be able to enter the folder.
    with tempfile.TemporaryDirectory(prefix="vetline-export-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        with LocalPostgres.start(folder / "postgres") as server:
            engine = open_ledger(server.url)
            upgrade(engine)
            seed_builtin(engine)
            start = time.monotonic()
            judge_many(engine, rows)
            filled_s = round(time.monotonic() - start, 1)
            engine.dispose()
            measured = [measure_export(server.url, form, folder) for form in forms]
    return {"machine": describe_machine(), "filled_s": filled_s, "exports": [asdict(m) for m in measured]}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("--rows", type=int, default=1_000_000)
    options.add_argument("--forms", nargs="+", choices=FORMS, default=list(FORMS))
    options.add_argument("--out", type=Path)
    asked = options.parse_args()
    result = run(asked.rows, tuple(asked.forms))
    for one in result["exports"]:
        print(json.dumps(one))
    if asked.out:
        asked.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()

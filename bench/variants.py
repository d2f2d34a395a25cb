"""Pictures made to be seen one way and judged another, by the thousand, each against Chromium.

usage: python -m bench.variants [--count 5000] [--seed 1] [--kind NAME] [--over 8] [--keep FOLDER] [--no-browser]

From a checkout: the kinds are those of the tests (tests/support/viewed_files.py). Prints, for each kind, how many
were compared, refused and missed; a miss is a picture in Chromium that no view is within --over levels of.
"""

import argparse
import time
from collections import Counter, defaultdict
from contextlib import nullcontext
from pathlib import Path
from random import Random

from bench.browser import browser, find_chromium
from bench.pictures import compare
from intake.decode import Decoder
from intake.settings import DecodeSettings
from moderation.log import configure_logging


def main() -> None:
    from tests.support.viewed_files import KINDS

    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kind", choices=sorted(KINDS))
    parser.add_argument("--over", type=float, default=8.0)
    parser.add_argument("--keep", type=Path, help="put the files that were missed here")
    parser.add_argument("--no-browser", action="store_true", help="decode only: deaths, times and codes")
    options = parser.parse_args()
    configure_logging()
    path = None if options.no_browser else find_chromium()
    if path is None and not options.no_browser:
        raise SystemExit("needs Chromium (Debian: apt install chromium), or --no-browser")
    kinds = [options.kind] if options.kind else list(KINDS)
    ends: dict[str, Counter[str]] = defaultdict(Counter)
    slowest = 0.0
    started = time.perf_counter()
    decoder = Decoder(DecodeSettings(children=1, wall_s=60))
    with browser(path) if path else nullcontext() as chromium:
        for number in range(options.count):
            kind = kinds[number % len(kinds)]
            data = KINDS[kind](Random(f"{options.seed} {number}"))
            row = compare(f"{kind} {number}", data, decoder, chromium)
            slowest = max(slowest, row.decode_ms)
            missed = (row.distance or 0) > options.over or (row.outcome == "undecodable" and row.shown)
            ends[kind][
                "missed" if missed else f"{row.outcome}, not shown" if row.shown is False else row.outcome
            ] += 1
            if missed:
                print(f"missed: {row.name} {row.outcome} {row.distance} {','.join(row.views)}", flush=True)
                if options.keep:
                    (options.keep / f"{row.name.replace(' ', '-')}.bin").write_bytes(data)
    decoder.close()
    version = chromium.version if chromium else "not asked"
    print(f"{options.count} pictures in {time.perf_counter() - started:.0f} s; Chromium {version}")
    print(f"slowest decode {slowest:.0f} ms")
    for kind, counts in ends.items():
        print(f"{kind:18} " + ", ".join(f"{end} {count}" for end, count in counts.most_common()))


if __name__ == "__main__":
    main()

"""What the queue costs, in one command: every figure beside its peer, with Redis and Postgres (fsync on) on the machine.

usage: python -m bench.queue [--only PART ...] [--out FOLDER] [sizes: see --help]

Writes queue.json and queue.png. Prints the bars and what they were met with.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.machine import describe_machine
from bench.queue import assessments, growth, idle, plot, runtimes, submissions
from bench.queue.ground import Ground, ground
from bench.queue.plan import PARTS, Plan

console = Console(stderr=True, highlight=False)

_RUN: dict[str, Callable[[Ground, Plan], dict[str, Any]]] = {
    "submissions": submissions.run,
    "assessments": assessments.run,
    "idle": idle.run,
    "runtimes": runtimes.run,
    "growth": growth.run,
}


def measure(plan: Plan, parts: tuple[str, ...], folder: Path) -> dict[str, Any]:
    """The results by part. folder: keeps services and logs, a folder of its own for each part."""
    results: dict[str, Any] = {"machine": describe_machine(), "plan": _plain(plan)}
    for part in parts:
        started = time.monotonic()
        with ground(folder / part) as services:
            results[part] = _RUN[part](services, plan)
        results[part]["took_s"] = round(time.monotonic() - started, 1)
        console.print(part, json.dumps(results[part]))
    return results


def _plain(plan: Plan) -> dict[str, Any]:
    return {name: getattr(plan, name) for name in Plan.__dataclass_fields__}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.queue", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--out", type=Path, default=Path("bench/results"))
    Plan.arguments(parser)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="vetline-queue-") as folder:
        results = measure(Plan.of(given), tuple(given.only), Path(folder))
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "queue.json").write_text(json.dumps(results, indent=2) + "\n")
    plot.draw(results, given.out / "queue.png")


if __name__ == "__main__":
    main()

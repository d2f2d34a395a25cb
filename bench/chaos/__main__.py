"""Run chaos, print one table, keep it with machine and commit.

good = good and not outcome.breaches and outcome.given_out_agrees
return 0 if good else 1
"""

import argparse
import json
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.chaos import peer
from bench.chaos.checker import Outcome
from bench.chaos.plan import Plan
from bench.chaos.run import run
from bench.machine import describe_machine


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.chaos", description=__doc__)
    parser.add_argument(
        "--peer", action="store_true", help="the same kills over plain Celery too, printed beside"
    )
    plan, given = Plan.from_arguments(parser)
    folder = Path(tempfile.mkdtemp(prefix="vetline-chaos-"))
    start = time.monotonic()
    outcome = run(plan, folder)
    took_s = round(time.monotonic() - start, 1)
    beside = (
        peer.run(peer.only_kills(plan), Path(tempfile.mkdtemp(prefix="vetline-peer-")))
        if given.peer
        else None
    )
    _show(outcome, beside, took_s)
    _keep(plan, outcome, beside, took_s, given.out)
    Console(stderr=True).print(f"history and logs: {folder}")
    wanted = {"poison": plan.poison} if plan.poison else {}
    good = outcome.lost == outcome.doubled == outcome.still_open == 0 and outcome.failed == wanted
    good = good and not outcome.breaches and outcome.given_out_agrees
    return 0 if good else 1


def _show(outcome: Outcome, beside: dict[str, int] | None, took_s: float) -> None:
    table = Table(box=None, pad_edge=False)
    for heading in ("", "vetline", *(["plain Celery, its kills alone"] if beside else [])):
        table.add_column(heading)
    others = beside or {}
    for name, value in (outcome.model_dump() | {"took_s": took_s}).items():
        shown = " ".join(f"{k}={v}" for k, v in value.items()) if isinstance(value, dict) else str(value)
        table.add_row(name.replace("_", " "), shown, str(others.get(name, "")))
    Console().print(table)


def _keep(plan: Plan, outcome: Outcome, beside: dict[str, int] | None, took_s: float, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    kind = "chaos-terms" if plan.terms else "chaos"
    result = {
        "machine": describe_machine(),
        "plan": asdict(plan),
        "outcome": outcome.model_dump(),
        "plain_celery": beside,
        "took_s": took_s,
    }
    (out / f"{kind}-{plan.items}.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    raise SystemExit(main())

"""Run chaos, print one table, keep it with machine and commit; exit 1 unless nothing was lost or doubled."""

import argparse
import json
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.chaos.checker import Outcome
from bench.chaos.plan import Plan
from bench.chaos.run import run
from bench.machine import describe_machine


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.chaos", description=__doc__)
    plan, out = Plan.from_arguments(parser)
    folder = Path(tempfile.mkdtemp(prefix="vetline-chaos-"))
    start = time.monotonic()
    outcome = run(plan, folder)
    took_s = round(time.monotonic() - start, 1)
    _show(outcome, took_s)
    _keep(plan, outcome, took_s, out)
    good = outcome.lost == outcome.doubled == outcome.still_open == 0 and outcome.set_aside == plan.poison
    Console(stderr=True).print(f"history and logs: {folder}")
    return 0 if good else 1


def _show(outcome: Outcome, took_s: float) -> None:
    table = Table(box=None, pad_edge=False, show_header=False)
    for name, value in outcome.model_dump().items():
        shown = " ".join(f"{k}={v}" for k, v in value.items()) if isinstance(value, dict) else str(value)
        table.add_row(name.replace("_", " "), shown)
    table.add_row("took s", str(took_s))
    Console().print(table)


def _keep(plan: Plan, outcome: Outcome, took_s: float, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    kind = "chaos-terms" if plan.terms else "chaos"
    result = {
        "machine": describe_machine(),
        "plan": asdict(plan),
        "outcome": outcome.model_dump(),
        "took_s": took_s,
    }
    (out / f"{kind}-{plan.items}.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    raise SystemExit(main())

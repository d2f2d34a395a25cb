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

from pydantic import BaseModel
from rich.console import Console
from rich.table import Table

from bench.chaos import peer
from bench.chaos.plain import only_what_plain_clients_meet, run_plain
from bench.chaos.plan import Plan
from bench.chaos.run import run
from bench.machine import describe_machine


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.chaos", description=__doc__)
    parser.add_argument(
        "--peer", action="store_true", help="the same kills over plain Celery too, printed beside"
    )
    parser.add_argument(
        "--plain", action="store_true", help="what Celery's own client sends, beside plain Celery's worker"
    )
    plan, given = Plan.from_arguments(parser)
    if given.plain:
        return _plain(plan, given.out)
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
    _keep(plan, outcome, beside, took_s, given.out, kind="chaos-terms" if plan.terms else "chaos")
    Console(stderr=True).print(f"history and logs: {folder}")
    wanted = {"poison": plan.poison} if plan.poison else {}
    good = outcome.lost == outcome.doubled == outcome.still_open == 0 and outcome.failed == wanted
    good = good and not outcome.breaches and outcome.given_out_agrees
    return 0 if good else 1


def _plain(plan: Plan, out: Path) -> int:
    """Both under the same kills; 0 where nothing of ours was lost or doubled."""
    plan = only_what_plain_clients_meet(plan)
    folder = Path(tempfile.mkdtemp(prefix="vetline-chaos-plain-"))
    start = time.monotonic()
    outcome = run_plain(plan, folder)
    took_s = round(time.monotonic() - start, 1)
    _keep(plan, outcome, None, took_s, out, kind="chaos-plain")  # before the peer's quarter of an hour
    beside = peer.run(plan, Path(tempfile.mkdtemp(prefix="vetline-peer-plain-")), plain=True)
    _show(outcome, {"sent": beside["accepted"], **beside}, took_s)
    _keep(plan, outcome, beside, took_s, out, kind="chaos-plain")
    Console(stderr=True).print(f"history and logs: {folder}")
    return 0 if outcome.lost == outcome.doubled == outcome.rejected == 0 and not outcome.breaches else 1


def _show(outcome: BaseModel, beside: dict[str, int] | None, took_s: float) -> None:
    table = Table(box=None, pad_edge=False)
    for heading in ("", "vetline", *(["plain Celery, its kills alone"] if beside else [])):
        table.add_column(heading)
    others = beside or {}
    for name, value in (outcome.model_dump() | {"took_s": took_s}).items():
        shown = " ".join(f"{k}={v}" for k, v in value.items()) if isinstance(value, dict) else str(value)
        table.add_row(name.replace("_", " "), shown, str(others.get(name, "")))
    Console().print(table)


def _keep(
    plan: Plan, outcome: BaseModel, beside: dict[str, int] | None, took_s: float, out: Path, *, kind: str
) -> None:
    out.mkdir(parents=True, exist_ok=True)
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

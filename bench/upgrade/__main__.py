"""Upgrade an earlier release at work, and count what came of it.

The earlier release is a checkout with a .venv of its own (`git worktree add FOLDER COMMIT`, then `make install` there).
It migrates the tables, submits and judges. With its work under way this release migrates the tables, and its workers
replace the old ones, one by one, while the queue holds the old release's messages. Exit code 1: something was lost,
doubled, not given out, or contradicts itself; or one release had nothing to do, so that nothing was shown.

    python -m bench.upgrade FOLDER
"""

import argparse
import json
import sys
import tempfile
import time
from dataclasses import asdict, fields
from pathlib import Path

from rich.console import Console

from bench.machine import describe_machine
from bench.upgrade.run import Plan, UpgradeOutcome, upgrade_under_way

_ROOT = Path(__file__).parents[2]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.upgrade", description=__doc__)
    parser.add_argument("folder", type=Path, help="a checkout of the earlier release, with a .venv")
    for field in fields(Plan):
        flag = "--" + field.name.replace("_", "-")
        parser.add_argument(flag, type=type(field.default), default=field.default, help=f"({field.default})")
    parser.add_argument("--out", type=Path, default=Path("bench/results/upgrade.json"))
    args = parser.parse_args()
    plan = Plan(**{field.name: getattr(args, field.name) for field in fields(Plan)})
    old = args.folder.resolve()
    folder = Path(tempfile.mkdtemp(prefix="vetline-upgrade-"))
    Console(stderr=True).print(f"images, logs and history: {folder}")
    start = time.monotonic()
    outcome = upgrade_under_way(
        plan, folder, old=(old, str(old / ".venv" / "bin" / "python")), new=(_ROOT, sys.executable)
    )
    result = {
        "machine": describe_machine(),
        "plan": asdict(plan),
        "outcome": outcome.model_dump(),
        "good": outcome.good,
        "took_s": round(time.monotonic() - start, 1),
    }
    args.out.write_text(json.dumps(result, indent=2) + "\n")
    _show(outcome)
    return 0 if outcome.good else 1


def _show(outcome: UpgradeOutcome) -> None:
    for name, value in outcome.model_dump().items():
        print(f"{name.replace('_', ' '):24} {value}")


if __name__ == "__main__":
    raise SystemExit(main())

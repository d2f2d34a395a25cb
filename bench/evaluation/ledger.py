"""How long and in how much memory `vetline evaluate` measures verdicts that stand in the ledger.

Postgres makes the labelled verdicts. The command then runs as a person would type it, as a process of its own.

    python -m bench.evaluation.ledger --rows 100000 --out bench/results/evaluation-ledger.json
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from sqlalchemy import text

from bench.machine import describe_machine
from moderation.ledger.engine import open_ledger, transaction
from moderation.ledger.migrate import upgrade
from moderation.ledger.policies import seed_builtin
from moderation.services.postgres import LocalPostgres
from tests.support.many import judge_many

# One in ten verdicts is against its label; each picture has two rows.
_LABEL = text("""
    UPDATE assessment a SET metadata = jsonb_build_object(
        'id', a.key, 'label', CASE WHEN (v.rating = 'Unsafe') <> (hashtext(a.key) % 10 = 0) THEN 'Unsafe' ELSE 'Safe' END,
        'category', v.category, 'source', 'source ' || abs(hashtext(a.key)) % 5)
    FROM verdict v WHERE v.assessment_id = a.id
""")


def measure(rows: int, folder: Path) -> dict[str, Any]:
    with LocalPostgres.start(folder / "postgres", fsync=False) as server:
        engine = open_ledger(server.url)
        upgrade(engine)
        seed_builtin(engine)
        judge_many(engine, rows, batch="many", unsafe_every=3)
        with transaction(engine, patience_s=3600) as connection:
            connection.execute(_LABEL)
        words = [
            "evaluate",
            "batch:many",
            "--policy",
            "llavaguard-default",
            "--group",
            "source",
            "--report",
            str(folder / "r"),
        ]
        start = time.monotonic()
        running = subprocess.Popen(
            [sys.executable, "-m", "moderation.cli", *words],
            env=os.environ | {"DATABASE_URL": server.url},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert running.stdout is not None
        said = running.stdout.read()
        _, status, usage = os.wait4(running.pid, 0)
        seconds = time.monotonic() - start
        running.returncode = os.waitstatus_to_exitcode(status)
        engine.dispose()
    if running.returncode:
        raise SystemExit(said)
    return {
        "rows": rows,
        "seconds": round(seconds, 1),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1),
        "peak_mb": round(usage.ru_maxrss * 1024 / 1e6, 1),
        "load_average": os.getloadavg()[0],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        told = {"machine": describe_machine(), **measure(given.rows, Path(folder))}
    print(json.dumps(told, indent=2))
    if given.out:
        given.out.write_text(json.dumps(told, indent=2) + "\n")


if __name__ == "__main__":
    main()

"""What a command of `vetline` costs before it does anything: seconds of CPU, of the whole process.

Postgres runs beside it, migrated and empty, so `status` and `verdicts` are what it takes to start, connect and ask. CPU
time is user and system time as the kernel counts it; it grows where others use the same cores, so the best run is
nearest to what a quiet machine takes. Bytecode is cached, as pip leaves it.

    python -m bench.startup --out bench/results/startup.json
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.machine import describe_machine
from moderation.ledger.engine import open_ledger
from moderation.ledger.migrate import upgrade
from moderation.services.postgres import LocalPostgres

COMMANDS = ("--help", "--version", "status", "verdicts", "enqueue --help")
_PACKAGES = ("typer", "sqlalchemy", "psycopg", "pydantic", "pydantic-settings", "rich", "structlog")


@dataclass(frozen=True, slots=True)
class Measured:
    """CPU seconds of one command."""

    command: str
    best_s: float
    median_s: float
    runs: int


def measure(words: list[str], shown: str, runs: int, env: dict[str, str]) -> Measured:
    """One run is not counted: it writes the bytecode that is missing."""
    times = [_cpu_s(words, env) for _ in range(runs + 1)][1:]
    return Measured(shown, round(min(times), 3), round(statistics.median(times), 3), runs)


def _cpu_s(words: list[str], env: dict[str, str]) -> float:
    running = subprocess.Popen(words, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(running.pid, 0)
    running.returncode = os.waitstatus_to_exitcode(status)
    if running.returncode:
        raise SystemExit(f"{' '.join(words)}: exit code {running.returncode}")
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--out", type=Path, default=Path("bench/results/startup.json"))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, LocalPostgres.start(Path(folder) / "pg") as server:
        engine = open_ledger(server.url)
        upgrade(engine)
        engine.dispose()
        env = os.environ | {"DATABASE_URL": server.url}
        env.pop("PYTHONDONTWRITEBYTECODE", None)
        found = [measure([sys.executable, "-c", "pass"], "python -c pass", args.runs, env)]
        for command in COMMANDS:
            words = [sys.executable, "-P", "-m", "moderation.cli", *command.split()]
            found.append(measure(words, f"vetline {command}", args.runs, env))
    for one in found:
        print(f"{one.command:24} best {one.best_s:.3f} s   median {one.median_s:.3f} s of CPU")
    result = {"machine": describe_machine(_PACKAGES), "commands": [asdict(one) for one in found]}
    args.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()

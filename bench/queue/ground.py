"""What every part stands on: a Postgres with fsync, a Redis, a ledger, and processes whose CPU is counted."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
from sqlalchemy import Engine

from moderation.ledger import migrate
from moderation.ledger.engine import open_ledger
from moderation.ledger.policies import seed_builtin
from moderation.services.postgres import LocalPostgres
from moderation.services.redis import LocalRedis

POLICY = "llavaguard-default"


@dataclass(frozen=True, slots=True)
class Ground:
    """Services of a part's own, and a folder for its logs."""

    database_url: str
    redis_url: str
    folder: Path
    engine: Engine
    postgres: psutil.Process
    redis: psutil.Process

    @property
    def env(self) -> dict[str, str]:
        return {"DATABASE_URL": self.database_url, "REDIS_URL": self.redis_url, "VETLINE_LOG_STYLE": "json"}

    @contextmanager
    def process(self, *words: str, name: str, **env: str) -> Iterator[psutil.Process]:
        """`python -m WORDS` while the block lasts; SIGTERM at its end."""
        with (self.folder / f"{name}.log").open("ab") as log:
            started = subprocess.Popen(
                [sys.executable, "-W", "ignore", "-m", *words],
                env=os.environ | self.env | env,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            yield psutil.Process(started.pid)
        finally:
            started.terminate()
            try:
                started.wait(timeout=40)
            except subprocess.TimeoutExpired:
                started.kill()
                started.wait(timeout=10)


@contextmanager
def ground(folder: Path) -> Iterator[Ground]:
    folder.mkdir(parents=True)
    with (
        LocalPostgres.start(folder / "postgres") as postgres,
        LocalRedis.start(folder / "redis", appendonly=False) as redis_server,
    ):
        engine = open_ledger(postgres.url)
        migrate.upgrade(engine)
        seed_builtin(engine)
        try:
            yield Ground(
                postgres.url,
                redis_server.url,
                folder,
                engine,
                _server("postgres", folder),
                _server("redis", folder),
            )
        finally:
            engine.dispose()


def _server(name: str, folder: Path) -> psutil.Process:
    """The server among our children, by the folder that it works in."""
    for child in psutil.Process().children(recursive=True):
        if name in child.name() and str(folder) in " ".join(child.cmdline()) + child.cwd():
            return child
    raise RuntimeError(f"no {name} in {folder}")


class CpuWatch:
    """CPU seconds of named groups of processes and their children, between start and stop."""

    def __init__(self, **groups: list[psutil.Process]) -> None:
        self._groups = groups
        self._before = {name: _cpu_s(group) for name, group in groups.items()}
        self._started = time.monotonic()

    def cores(self) -> dict[str, float]:
        """Mean number of cores that each group kept busy since the start, less processes that have ended since."""
        elapsed = time.monotonic() - self._started
        return {
            name: round(max(0.0, _cpu_s(group) - self._before[name]) / elapsed, 2)
            for name, group in self._groups.items()
        }


def _cpu_s(group: list[psutil.Process]) -> float:
    total = 0.0
    for process in group:
        for each in (process, *process.children(recursive=True)):
            try:
                times = each.cpu_times()
            except psutil.Error:  # it has just ended
                continue
            total += times.user + times.system
    return total


def wait_until(
    look: Callable[[], bool],
    *,
    limit_s: float,
    what: str,
    every_s: float = 0.05,
    workers: Sequence[psutil.Process] = (),
) -> None:
    """Raises where it takes too long, or where a worker that it depends on has ended."""
    end = time.monotonic() + limit_s
    while not look():
        if any(worker.status() == psutil.STATUS_ZOMBIE for worker in workers):
            raise RuntimeError(f"a worker ended before {what}; see its log")
        if time.monotonic() > end:
            raise TimeoutError(what)
        time.sleep(every_s)


def rounded(values: Mapping[str, float], digits: int = 2) -> dict[str, float]:
    return {name: round(value, digits) for name, value in values.items()}

"""Processes that `vetline up` and `vetline demo` keep: Vetline's own commands and Flower."""

import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from moderation.cli.places import told_put_back
from moderation.errors import Misuse, VetlineError
from moderation.exit_codes import MISUSE
from moderation.ledger import migrate
from moderation.ledger.engine import open_ledger
from moderation.ledger.policies import seed_builtin
from moderation.services.child import ChildProcess
from moderation.services.resolve import Services
from worker.host.graceful_stop import GracefulStop

_LOOK_S = 0.05
_RESTARTS = 5  # so many within a minute, and it is given up
_WITHIN_S = 60.0
_LONGEST_DELAY_S = 60.0
STOP_WORKER_S = 40.0  # a worker drains for 25 s and then leaves by itself; see WorkerSettings.drain_s
STOP_OTHER_S = 5.0


def environment(services: Services, **more: str) -> dict[str, str]:
    """Our own environment with these services in it, for a child that must not look for others."""
    named = {"DATABASE_URL": services.database_url, "REDIS_URL": services.redis_url}
    return {**os.environ, **named, **more}


def file_root(folder: Path) -> str:
    """A folder as VETLINE_FETCH_FILE_ROOTS takes it. Raises Misuse where that cannot say its name."""
    root = str(folder.resolve())
    if "," in root:
        raise Misuse(f"{root} has a comma in its name, which VETLINE_FETCH_FILE_ROOTS takes for two folders")
    return root


def vetline(*words: str) -> list[str]:
    """The command line of a Vetline command. -P: a `redis.py` in the user's folder is not to be imported."""
    return [sys.executable, "-P", "-m", "moderation.cli", *words]


def start(argv: list[str], env: Mapping[str, str], *, log: Path | None = None) -> ChildProcess:
    """Start a command in the current folder; it ends by SIGTERM when we do, however we do."""
    return ChildProcess(argv, stop_signal=signal.SIGTERM, env=env, log=log, cwd=Path.cwd())


def stop(child: ChildProcess, stopping: GracefulStop, *, within_s: float) -> None:
    """SIGTERM, and SIGKILL where that is not heeded in time, or the user asks a second time."""
    child.send(signal.SIGTERM)
    deadline = time.monotonic() + within_s
    while child.alive() and time.monotonic() < deadline and not stopping.hurry:
        time.sleep(_LOOK_S)
    child.stop([signal.SIGKILL])


def stop_all(processes: Sequence["SupervisedProcess"], stopping: GracefulStop) -> None:
    """SIGTERM to all of them at once, so that they drain side by side; SIGKILL to what is left at the deadline."""
    for process in processes:
        process.send(signal.SIGTERM)
    deadline = time.monotonic() + max((process.stop_s for process in processes), default=0.0)
    while any(process.runs() for process in processes) and time.monotonic() < deadline and not stopping.hurry:
        time.sleep(_LOOK_S)
    for process in processes:
        process.send(signal.SIGKILL)
        process.stop(stopping)


def prepare(services: Services) -> tuple[str, str, list[str]]:
    """Bring the tables and the built-in policies up to this release.

    The revisions before and after, and a line for each consumer or webhook that was put back.
    """
    engine = open_ledger(services.database_url)
    try:
        before = migrate.current(engine)
        after = migrate.upgrade_tables(engine)
        seed_builtin(engine)
        put_back = list(told_put_back(engine, after.places))
    finally:
        engine.dispose()
    return before, after.revision, put_back


class SupervisedProcess:
    """A process that is started again when it ends, after 1, 2, 4 ... s."""

    def __init__(
        self,
        name: str,
        launch: Callable[[], ChildProcess],
        *,
        stop_s: float,
        most_ends: int | None = _RESTARTS,
        within_s: float = _WITHIN_S,
    ) -> None:
        """stop_s: how long it may take to end after SIGTERM.

        most_ends: it is given up where it ends so often within within_s; None: never, and only its delay grows.
        """
        self.name = name
        self.stop_s = stop_s
        self._launch = launch
        self._most_ends = most_ends
        self._within_s = within_s
        self._ended: list[float] = []  # when, by the monotonic clock, within that time
        self._start_at: float | None = None
        self._child: ChildProcess | None = launch()

    def look(self) -> str | None:
        """Start it again if that is due; say in a line what happened, if anything did.

        Raises Misuse where it says that its settings are wrong, and VetlineError where it keeps ending.
        """
        now = time.monotonic()
        if self._child is not None:
            return None if self._child.alive() else self._has_ended(self._child, now)
        if self._start_at is not None and now >= self._start_at:
            self._start_at = None
            self._child = self._launch()
            return "started again"
        return None

    def stop(self, stopping: GracefulStop) -> None:
        if self._child is not None:
            stop(self._child, stopping, within_s=self.stop_s)

    def send(self, number: signal.Signals) -> None:
        if self._child is not None:
            self._child.send(number)

    def runs(self) -> bool:
        return self._child is not None and self._child.alive()

    def _has_ended(self, child: ChildProcess, now: float) -> str:
        code, self._child = child.exit_code, None
        if code == MISUSE:
            raise Misuse(f"the {self.name} cannot start as it is set up")
        self._ended = [*(moment for moment in self._ended if now - moment < self._within_s), now]
        ends = len(self._ended)
        if self._most_ends is not None and ends >= self._most_ends:
            raise VetlineError(
                f"the {self.name} ended {ends} times within {self._within_s:g} s (exit code {code})"
            )
        delay_s = min(2.0 ** min(ends - 1, 10), _LONGEST_DELAY_S)
        self._start_at = now + delay_s
        return f"ended with exit code {code}; starting it again in {delay_s:g} s"

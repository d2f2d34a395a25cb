"""Registration: tells the ledger that this worker is there, and how it is, for `vetline watch` and whoever counts workers.

A thread of its own: the heartbeat that renews leases must not wait for it, and one that hangs is told here.
"""

import threading
import time
from collections.abc import Callable
from contextlib import suppress

import structlog
from sqlalchemy import Engine

from moderation.errors import LedgerUnavailable
from moderation.ledger.workers import register_worker, unregister_worker
from moderation.settings import LeaseSettings
from moderation.worker_status import WorkerStatus

log = structlog.get_logger()

_LOOK_S = 1.0  # a change from ready to waiting, or back, is told within this; the rest with the next beat


class Registration:
    """A thread that says so with every beat, and at once where what is waited for has changed."""

    def __init__(
        self,
        engine: Engine,
        lease: LeaseSettings,
        *,
        status: Callable[[], WorkerStatus],
    ) -> None:
        """status: how it is, from memory alone."""
        self._engine = engine
        self._lease = lease
        self._status = status
        self._sent_waits: set[str] | None = None  # names of what it waited for when it was last told
        self._due_at = 0.0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="registration", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Say no more, and that this worker has ended as it was told to."""
        self._stopped.set()
        self._thread.join(timeout=_LOOK_S)
        status = self._status()
        with suppress(LedgerUnavailable):  # then it shows as silent, and is forgotten
            unregister_worker(self._engine, status.name, status.started_at)

    def _run(self) -> None:
        wait_s = 0.0
        while not self._stopped.wait(wait_s):
            wait_s = min(_LOOK_S, self._lease.beat_s)
            try:
                self._tell()
            except LedgerUnavailable as exc:
                log.debug("presence_not_told", error=str(exc))  # the heartbeat and the gate say it aloud
            except Exception:  # no item depends on it
                log.exception("presence_failed")
                wait_s = self._lease.beat_s

    def _tell(self) -> None:
        """Where it is due."""
        status = self._status()
        waits = {wait.name for wait in status.waits}
        if waits == self._sent_waits and time.monotonic() < self._due_at:
            return
        register_worker(self._engine, status, silent_after_s=self._lease.lease_s)
        self._sent_waits, self._due_at = waits, time.monotonic() + self._lease.beat_s

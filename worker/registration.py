"""Registration: tells the ledger that this worker is there, and how it is, for `vetline watch` and whoever counts workers.

A thread of its own: the heartbeat that renews leases must not wait for it, and one that hangs is told here.
"""

import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress

import structlog
from sqlalchemy import Engine

from moderation.errors import LedgerUnavailable
from moderation.ledger.workers import Wait, WorkerStatus, register_worker, unregister_worker
from moderation.settings import LeaseSettings
from worker.gpu.name import gpu_name
from worker.health.status_report import StatusReport
from worker.judges.protocol import Runtime

log = structlog.get_logger()

_LOOK_S = 1.0  # a change from ready to waiting, or back, is told within this; the rest with the next beat


class Registration:
    """A thread that says so with every beat, and at once where what is waited for has changed."""

    def __init__(
        self,
        engine: Engine,
        lease: LeaseSettings,
        *,
        report: Callable[[], StatusReport],
        runtime: Callable[[], Runtime],
    ) -> None:
        """report, runtime: how they are, from memory alone."""
        self._engine = engine
        self._lease = lease
        self._report = report
        self._runtime = runtime
        self._told: set[str] | None = None  # names of what it waited for when it was last told
        self._due_at = 0.0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="presence", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Say no more, and that this worker has ended as it was told to."""
        self._stopped.set()
        self._thread.join(timeout=_LOOK_S)
        report = self._report()
        with suppress(LedgerUnavailable):  # then it shows as silent, and is forgotten
            unregister_worker(self._engine, report.name, report.started_at)

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
        status = _status(self._report(), self._runtime())
        waits = {wait.name for wait in status.waits}
        if waits == self._told and time.monotonic() < self._due_at:
            return
        register_worker(self._engine, status, silent_after_s=self._lease.lease_s)
        self._told, self._due_at = waits, time.monotonic() + self._lease.beat_s


def _status(report: StatusReport, runtime: Runtime) -> WorkerStatus:
    hangs = [Wait("hangs", what) for what in report.hangs]
    return WorkerStatus(
        name=report.name,
        host=socket.gethostname(),
        pid=report.pid,
        gpu=gpu_name() or None,
        judge=report.judge,
        version=report.version,
        runtime=runtime.name,
        runtime_version=runtime.version,
        runtime_state=runtime.state,
        model=runtime.model,
        ready=report.ready,
        waits=[*hangs, *(Wait(wait.name, wait.reason, wait.since) for wait in report.waiting)],
        in_hand=report.in_hand,
        in_hand_limit=report.in_hand_most,
        in_flight=report.in_flight,
        in_flight_limit=report.in_flight_most,
        started_at=report.started_at,
    )

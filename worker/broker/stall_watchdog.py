"""Watches for a stall: a connection that looks well and brings nothing is no connection.

Workers on Redis have been seen to reconnect and consume nothing. So what is watched is not the connection but the
work: messages wait, there is room in hand, the gate is open, and for half a minute none arrived. The first time, the
consumer is made to reconnect; if that brings nothing either, the process ends, for its supervisor to start anew.
"""

import threading
import time
from collections.abc import Callable

import structlog

from moderation import metrics
from moderation.errors import BrokerUnavailable
from worker.service import WorkerService

log = structlog.get_logger()

_LOOK_EVERY_S = 2.0
_REDIS, _PROGRESS = "redis", "progress"  # a condition


class StallWatchdog:
    """A thread that looks. Reconnecting is left to the hub's thread, since only that may touch the consumer."""

    def __init__(self, service: WorkerService, leave: Callable[[], None]) -> None:
        """leave: ends this process in bounded time, whatever the hub's thread may hang on."""
        self._service = service
        self._leave = leave
        self._starved_since: float | None = None
        self._asked_at: float | None = None  # for a reconnection that has brought nothing yet
        self._is_connected_anew = False  # since it was asked for
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)
        self.reconnect_wanted = False

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()

    def reconnected(self) -> None:
        """The consumer starts over, and so does its time."""
        self._starved_since = None
        self._is_connected_anew = True
        self.reconnect_wanted = False

    def _run(self) -> None:
        while not self._stopped.wait(min(_LOOK_EVERY_S, self._service.settings.stalled_s / 4)):
            self._service.liveness.beat("progress")
            self._look(time.monotonic())

    def _look(self, now: float) -> None:
        taken_at = self._service.processor.taken_at
        if self._asked_at is not None and taken_at > self._asked_at:
            self._asked_at = None  # the reconnection helped
        if not self._starved():
            self._starved_since = None
            self._service.conditions.clear(_PROGRESS)
            return
        if self._starved_since is None or taken_at > self._starved_since:
            self._starved_since = now
        if now - self._starved_since >= self._patience_s:
            self._act(now)

    @property
    def _patience_s(self) -> float:
        """Twice as long for a reconnection under way: closing what does not answer takes a while, but not for ever."""
        under_way = self._asked_at is not None and not self._is_connected_anew
        return self._service.settings.stalled_s * (2 if under_way else 1)

    def _act(self, now: float) -> None:
        if self._asked_at is not None:
            log.critical("consumer_stalled_again", worker=self._service.settings.node)
            self._leave()
            return
        metrics.STALLS.inc()
        log.error("consumer_stalled", worker=self._service.settings.node)
        self._asked_at, self._is_connected_anew = now, False
        self._service.conditions.wait_for(
            _PROGRESS,
            f"messages wait and none arrived for {self._service.settings.stalled_s:g} s; connecting anew",
        )
        self._starved_since = None
        self.reconnect_wanted = True

    def _starved(self) -> bool:
        """Whether work waits that this worker could take."""
        service = self._service
        try:
            waiting = service.waiting()
        except BrokerUnavailable as exc:
            service.conditions.wait_for(_REDIS, str(exc))
            return False  # nothing to consume from; reconnecting is kombu's work
        service.conditions.clear(_REDIS)
        has_room = service.limiter.busy_threads < service.limiter.busy_threads_limit
        return waiting > 0 and service.intake_gate.is_open and has_room

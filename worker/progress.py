"""The watch on progress: a connection that looks well and brings nothing is no connection.

Workers on Redis have been seen to reconnect and consume nothing. So what is watched is not the connection but the
work: messages wait, there is room in hand, the gate is open, and for half a minute none arrived. The first time, the
consumer is made to reconnect; if that brings nothing either, the process ends, for its supervisor to start anew.
"""

import os
import signal
import threading
import time
from enum import StrEnum

import structlog

from moderation.errors import BrokerUnavailable
from worker.station import Station

log = structlog.get_logger()

_LOOK_EVERY_S = 2.0


class Stall(StrEnum):
    NONE = "none"
    RECONNECT = "reconnect"
    LEAVE = "leave"


class Progress:
    """A thread that looks; the hub's thread asks `stall` and acts, since only it may touch the consumer."""

    def __init__(self, station: Station) -> None:
        self._station = station
        self._starved_since: float | None = None
        self._reconnected_at: float | None = (
            None  # when a reconnection was asked for that has brought nothing yet
        )
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)
        self.stall = Stall.NONE

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()

    def reconnected(self) -> None:
        """The consumer starts over, and so does its time."""
        self._starved_since = None
        self.stall = Stall.NONE

    def leave(self) -> None:
        """End this process as an operator would: what is in hand finishes or is given back."""
        log.critical("consumer_stalled_again", worker=self._station.settings.node)
        os.kill(os.getpid(), signal.SIGTERM)

    def _run(self) -> None:
        while not self._stopped.wait(_LOOK_EVERY_S):
            self._look(time.monotonic())

    def _look(self, now: float) -> None:
        taken_at = self._station.desk.taken_at
        if self._reconnected_at is not None and taken_at > self._reconnected_at:
            self._reconnected_at = None  # the reconnection helped
        if not self._starved():
            self._starved_since = None
            return
        if self._starved_since is None or taken_at > self._starved_since:
            self._starved_since = now
        if now - self._starved_since < self._station.settings.stalled_s:
            return
        self.stall = Stall.RECONNECT if self._reconnected_at is None else Stall.LEAVE
        self._reconnected_at = now
        self._starved_since = None

    def _starved(self) -> bool:
        """Whether work waits that this worker could take."""
        station = self._station
        if not station.gate.is_open or len(station.desk.hand) >= station.settings.threads:
            return False
        try:
            return station.waiting() > 0
        except BrokerUnavailable:
            return False  # nothing to consume from; reconnecting is kombu's work

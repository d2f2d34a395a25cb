"""Backpressure: refuses a producer, or makes it wait, when as many rows wait in the ledger as may."""

import threading
import time
from collections.abc import Callable

from sqlalchemy import Engine

from moderation.errors import QueueFull
from moderation.ledger.counters import queued
from moderation.settings import QueueSettings

_GOOD_FOR_S = 0.5  # a count; what we add meanwhile is added to it
_LOOK_AGAIN_S = 1.0  # of who waits for room


class Backpressure:
    """Lets submissions in while fewer than VETLINE_QUEUE_BOUND rows wait. Safe to share between threads.

    Producers that submit at the same moment do not see each other, so it may be passed by what they submit within
    half a second. Without a bound it asks nothing.
    """

    def __init__(
        self, engine: Engine, settings: QueueSettings, *, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._engine = engine
        self._settings = settings
        self._sleep = sleep
        self._lock = threading.Lock()
        self._queued = 0
        self._ask_at = 0.0

    def admit(self, count: int) -> None:
        """Return once `count` more rows may wait.

        Raises QueueFull where VETLINE_QUEUE_WHEN_FULL is refuse, or where they are more than the bound as it is;
        LedgerUnavailable.
        """
        bound = self._settings.bound
        if bound is None:
            return
        while (waiting := self._added(count, bound)) is not None:
            if self._settings.when_full == "refuse" or count > bound:
                raise QueueFull(f"{waiting} assessments wait and {bound} may; submit {count} later")
            self._sleep(_LOOK_AGAIN_S)

    def _added(self, count: int, bound: int) -> int | None:
        """None where there was room, which is then taken; else how many wait."""
        with self._lock:
            if time.monotonic() >= self._ask_at or self._queued + count > bound:
                self._queued = queued(self._engine)
                self._ask_at = time.monotonic() + _GOOD_FOR_S
            if self._queued + count > bound:
                return self._queued
            self._queued += count
            return None

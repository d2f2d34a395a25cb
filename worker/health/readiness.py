"""Readiness conditions: what this worker waits for before it would take and finish an item, in words.

Whoever finds that something is missing puts it up under a name of its own, and takes it down when it is well:

    conditions.wait_for("runtime", "SGLang loads its weights (42 s so far)")
    conditions.clear("runtime")

Probes, `vetline worker-status` and metrics read it. It decides nothing itself: the gate does.
"""

import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

from moderation.worker_status import Wait


def _now() -> datetime:
    return datetime.now(UTC)


class Readiness:
    """Named conditions, safe to share between threads. Ready while there are none."""

    def __init__(self, *, now: Callable[[], datetime] = _now) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._waiting: dict[str, Wait] = {}

    def wait_for(self, name: str, reason: str) -> None:
        """Not ready because of this. Said again with another reason, it is the same wait since it began."""
        with self._lock:
            known = self._waiting.get(name)
            self._waiting[name] = replace(known, reason=reason) if known else Wait(name, reason, self._now())

    def clear(self, name: str) -> None:
        """This one is well; nothing where it was not waited for."""
        with self._lock:
            self._waiting.pop(name, None)

    def waiting(self) -> tuple[Wait, ...]:
        """What is waited for, the oldest first."""
        with self._lock:
            return tuple(self._waiting.values())

    @property
    def is_ready(self) -> bool:
        return not self._waiting

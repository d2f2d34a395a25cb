"""Liveness: whether the loops of this worker still run. A process whose loops turn is well, whatever it waits for."""

import threading
import time
from collections.abc import Callable

# Each loop says of itself when it must be heard again. The longest wait inside one is for Postgres: 30 s for a
# statement, 15 s for a connection; the judge's own check takes up to 25 s.
LOOP_S = 120.0
# The consumer's thread only moves messages; a Redis that is away ends its connection, and it is not asked meanwhile.
HUB, HUB_S = "consumer", 30.0


class Liveness:
    """Named loops and when each was last heard. Safe to share between threads."""

    def __init__(self, *, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._due: dict[
            str, tuple[float, float]
        ] = {}  # when it was heard, and within what time it must be again

    def beat(self, name: str, within_s: float = LOOP_S) -> None:
        """This loop turns; it is well for so long."""
        with self._lock:
            self._due[name] = (self._now(), within_s)

    def forget(self, name: str) -> None:
        """This loop has ended, or stands still for a reason."""
        with self._lock:
            self._due.pop(name, None)

    def silent(self) -> tuple[str, ...]:
        """Loops that hang, in words; none where all is well."""
        now = self._now()
        with self._lock:
            ages = {name: now - at for name, (at, within_s) in self._due.items() if now - at > within_s}
        return tuple(f"{name}: not heard for {age:.0f} s" for name, age in ages.items())

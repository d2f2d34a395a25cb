"""The tempo: how long an item takes here, and so how many of them a thread may take on at once."""

import threading

_AT_ONCE_S = (
    0.1  # of work: more would wait behind others in this thread, leased, while other threads were free
)
_WEIGHT = 0.1  # of the newest item in the mean


class Tempo:
    """The mean time of an item, the newest counting most. Slow until it was measured."""

    def __init__(self, most: int) -> None:
        """most: rows that a thread takes on at once, however quick they are."""
        self._most = most
        self._lock = threading.Lock()
        self._mean_s = _AT_ONCE_S

    def note(self, seconds: float) -> None:
        """One item took so long."""
        with self._lock:
            self._mean_s += _WEIGHT * (seconds - self._mean_s)

    def rows(self) -> int:
        """How many rows a thread works off within a tenth of a second; 1 at least."""
        return max(1, min(self._most, int(_AT_ONCE_S / max(self._mean_s, 1e-6))))

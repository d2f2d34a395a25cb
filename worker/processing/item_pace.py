"""Item pace: how long an item takes here; so how many a thread may take on at once, and how long a verdict may wait."""

import threading

_AT_ONCE_S = (
    0.1  # of work: more would wait behind others in this thread, leased, while other threads were free
)
_WEIGHT = 0.1  # of the newest item in the mean
# How long a verdict waits for others to be written with: an eighth of what it took, within these bounds. What a worker that
# dies has not written is judged again, so they are short.
_LINGER, _LEAST_LINGER_S, MOST_LINGER_S = 1 / 8, 0.05, 0.25


class ItemPace:
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

    def linger_s(self) -> float:
        """How long a busy worker's verdict may wait for others to be written with it."""
        return min(max(_LINGER * self._mean_s, _LEAST_LINGER_S), MOST_LINGER_S)

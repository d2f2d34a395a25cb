"""The wall-clock budget of one fetch. Every wait on a socket is cut to it."""

import time

from moderation.errors import TooSlow


class Budget:
    """Counts down from its creation. Used by one thread."""

    def __init__(self, total_s: float) -> None:
        self._total_s = total_s
        self._started = time.monotonic()

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self._started

    def forgive(self, seconds: float) -> None:
        """Leave out a wait of our own making."""
        self._started += seconds

    def left_s(self, at_most_s: float) -> float:
        """Seconds that the next wait may take. Raises TooSlow where none are left."""
        left_s = self._total_s - self.elapsed_s
        if left_s <= 0:
            raise TooSlow(f"not fetched within {self._total_s:g} s")
        return min(left_s, at_most_s)


class Pace:
    """The average rate of a body since its first byte."""

    def __init__(self, min_rate_bytes_s: float, after_s: float) -> None:
        self._min_rate_bytes_s = min_rate_bytes_s
        self._after_s = after_s
        self._started = time.monotonic()

    def check(self, received_bytes: int) -> None:
        """Raises TooSlow below the minimum rate, once the body has had time to start."""
        elapsed_s = time.monotonic() - self._started
        if elapsed_s > self._after_s and received_bytes < elapsed_s * self._min_rate_bytes_s:
            raise TooSlow(f"slower than {self._min_rate_bytes_s:g} bytes/s")

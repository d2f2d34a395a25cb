"""How fast each token may ask: a bucket for requests and one for items, filled at a steady rate."""

import threading
import time
from dataclasses import dataclass

from producer.serve.problems import Problem
from producer.serve.settings import ServeSettings


@dataclass(slots=True)
class _Bucket:
    level: float
    at: float


class Rate:
    """What one kind of thing may cost. Whoever has anything left may take much, and waits longer after."""

    def __init__(self, what: str, per_s: float, burst_s: float) -> None:
        self._what = what
        self._per_s = per_s
        self._full = max(1.0, per_s * burst_s)
        self._buckets: dict[str, _Bucket] = {}
        self._lock = threading.Lock()

    def take(self, owner: str, count: int = 1) -> None:
        """Raises Problem 429, with the seconds to wait, where the bucket is empty."""
        now = time.monotonic()
        with self._lock:
            bucket = self._buckets.setdefault(owner, _Bucket(self._full, now))
            bucket.level = min(self._full, bucket.level + (now - bucket.at) * self._per_s)
            bucket.at = now
            if bucket.level >= 1:
                bucket.level -= count
                return
            wait_s = (1 - bucket.level) / self._per_s
        raise Problem(
            429,
            "rate_limited",
            f"more than {self._per_s:g} {self._what} a second from this token",
            retry_after_s=wait_s,
        )


class RateLimits:
    """Both rates of every token. The number of tokens bounds its memory."""

    def __init__(self, settings: ServeSettings) -> None:
        self.requests = Rate("requests", settings.requests_per_s, settings.burst_s)
        self.items = Rate("items", settings.items_per_s, settings.burst_s)

"""How many connections may be open at once: to one host, and to all."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from intake.budget import Budget
from moderation.errors import HostUnavailable


class Slots:
    """A bound for each host under a bound for all. Thread-safe; forgets hosts that nobody talks to."""

    def __init__(self, *, total: int, per_host: int, wait_s: float) -> None:
        self._total = total
        self._per_host = per_host
        self._wait_s = wait_s
        self._taken: dict[str, int] = {}
        self._all = 0
        self._freed = threading.Condition()

    @contextmanager
    def of(self, host: str, budget: Budget) -> Iterator[None]:
        """Hold the right to one connection to a host. Raises HostUnavailable after wait_s.

        The wait is not the host's fault, so the budget forgives it. It holds no common slot meanwhile, so a
        slow host does not keep the others from being fetched.
        """
        started = time.monotonic()
        self._take(host)
        budget.forgive(time.monotonic() - started)
        try:
            yield
        finally:
            self._give_back(host)

    def _take(self, host: str) -> None:
        deadline = time.monotonic() + self._wait_s
        with self._freed:
            while self._all >= self._total or self._taken.get(host, 0) >= self._per_host:
                left_s = deadline - time.monotonic()
                if left_s <= 0:
                    raise HostUnavailable(f"all our connections to {host} were busy for {self._wait_s:g} s")
                self._freed.wait(left_s)
            self._all += 1
            self._taken[host] = self._taken.get(host, 0) + 1

    def _give_back(self, host: str) -> None:
        with self._freed:
            self._all -= 1
            self._taken[host] -= 1
            if not self._taken[host]:
                del self._taken[host]
            self._freed.notify_all()

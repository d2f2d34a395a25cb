"""Limits concurrency at the judge: how many images it is asked about at once, and how many threads are busy for that.

A slot lasts from the ask to the answer. The adaptive limit finds how many slots there may be, from what the slots
themselves bring. The limit of busy threads follows it: one for each slot, a few that wait for one, so that no slot is
ever free, and those that fetch, decode or record. With slow image hosts that is many more than with fast ones.
"""

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import structlog

from moderation.errors import JudgeTimeout, RuntimeFault, RuntimeUnavailable, Unavailable, VetlineError
from worker.concurrency.adaptive_limit import AdaptiveLimit, Window

log = structlog.get_logger()

_ROUNDS = 1  # answers for each slot of the limit in a window; the adaptive limit asks for as many windows as it needs
_FULL = 0.9  # of the limit in use on average; with less, a window says nothing of what more would bring
_SHORTEST_S, _FEWEST = 1.0, 32  # of a window: seconds and answers


class ConcurrencyLimiter:
    """Shared by all threads of a worker."""

    def __init__(
        self,
        adaptive_limit: AdaptiveLimit,
        *,
        most_threads: int,
        may_expect: bool = False,
        rounds: int = _ROUNDS,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """most_threads: how many there are, so how many can be busy at all.

        may_expect: whether to begin by what the runtime says of itself.
        """
        self._adaptive_limit = adaptive_limit
        self._most_threads = most_threads
        self._rounds = rounds
        self._now = now
        self._changed = threading.Condition()
        self._busy = self._waiting = self._in_flight = 0
        self._may_expect = may_expect
        self._measure_from(now())

    # --- read by metrics, probes and the consumer

    @property
    def limit(self) -> int:
        """How many images the judge is asked about at once, at most."""
        return self._adaptive_limit.limit

    @property
    def in_flight(self) -> int:
        return self._in_flight

    @property
    def busy_threads(self) -> int:
        """Threads that work on a message, or on a part of one."""
        return self._busy

    @property
    def phase(self) -> str:
        return self._adaptive_limit.phase.value

    @property
    def busy_threads_limit(self) -> int:
        """How many threads may be busy at once, for now."""
        with self._changed:
            elsewhere = max(self._busy - self._in_flight - self._waiting, 0)
            limit = self._adaptive_limit.limit
        return min(limit + max(2, limit // 8) + elsewhere, self._most_threads)

    def expect(self, at_once: int | None) -> None:
        """Begin at half of what the runtime says that it works on at once; nothing where it does not say, or later.

        Half, because a first step up tells at once whether the whole is good: it may share its GPU, or boast.
        """
        with self._changed:
            if at_once is None or not self._may_expect or not self._adaptive_limit.is_untried:
                return
            self._may_expect = False
            before = self._adaptive_limit.limit
            self._adaptive_limit.begin_at(math.ceil(at_once / 2))
            log.info(
                "in_flight_expected", limit=self._adaptive_limit.limit, before=before, runtime_says=at_once
            )
            self._measure_from(self._now())
            self._changed.notify(1 + max(0, self._adaptive_limit.limit - before))

    # --- taken by the threads

    @contextmanager
    def working(self) -> Iterator[None]:
        """This thread is busy for the length of the block."""
        with self._changed:
            self._busy += 1
        try:
            yield
        finally:
            with self._changed:
                self._busy -= 1

    @contextmanager
    def slot(self, *, timeout_s: float) -> Iterator[None]:
        """Ask within the block. Raises RuntimeUnavailable where no slot came free in time."""
        begun_at = self._enter(timeout_s)
        outcome: VetlineError | None = None
        try:
            yield
        except VetlineError as error:
            outcome = error
            raise
        finally:
            self._leave(begun_at, outcome)

    def _enter(self, timeout_s: float) -> float:
        with self._changed:
            self._waiting += 1
            try:
                free = self._changed.wait_for(lambda: self._in_flight < self._adaptive_limit.limit, timeout_s)
            finally:
                self._waiting -= 1
            if not free:
                raise RuntimeUnavailable(
                    f"none of {self._adaptive_limit.limit} slots came free in {timeout_s:g} s"
                )
            self._count(+1)
            return self._now()

    def _leave(self, begun_at: float, error: VetlineError | None) -> None:
        with self._changed:
            before = self._adaptive_limit.limit
            self._count(-1)
            if isinstance(error, Unavailable):
                self._adaptive_limit.start_over()
                self._measure_from(self._now())
            elif begun_at >= self._since:  # else it was asked under another limit
                self._note(self._now() - begun_at, is_fault=isinstance(error, JudgeTimeout | RuntimeFault))
            # One slot came free, so one thread is woken: dozens wait, and each would look and lie down again.
            self._changed.notify(1 + max(0, self._adaptive_limit.limit - before))

    # --- the window

    def _measure_from(self, now: float) -> None:
        self._since = now  # slots that began earlier do not count
        self._is_settling = True
        self._faults = 0
        self._clear(now)

    def _clear(self, now: float) -> None:
        self._answered, self._answers_s = 0, 0.0
        self._window_from = self._counted_at = now
        self._in_flight_s = 0.0  # the integral of the number in flight over time

    def _count(self, step: int) -> None:
        now = self._now()
        self._in_flight_s += self._in_flight * (now - self._counted_at)
        self._counted_at = now
        self._in_flight += step

    def _note(self, took_s: float, *, is_fault: bool) -> None:
        if is_fault:
            self._faults += 1
        else:
            self._answered += 1
            self._answers_s += took_s
        now = self._now()
        window = self._window(now)
        if window.is_faulty:
            self._adapt(window)
        elif self._is_settling and self._answered >= self._adaptive_limit.limit:
            self._is_settling = False
            self._clear(now)
        elif (
            not self._is_settling
            and self._answered >= max(self._rounds * self._adaptive_limit.limit, _FEWEST)
            and now - self._window_from >= _SHORTEST_S
        ):
            if window.in_flight >= _FULL * self._adaptive_limit.limit:
                self._adapt(window)
            else:
                self._measure_from(now)

    def _window(self, now: float) -> Window:
        elapsed_s = max(now - self._window_from, 1e-9)
        return Window(
            answered=self._answered,
            faults=self._faults,
            in_flight=self._in_flight_s / elapsed_s,
            answer_s=self._answers_s / max(self._answered, 1),
        )

    def _adapt(self, window: Window) -> None:
        before = self._adaptive_limit.limit
        self._adaptive_limit.adapt(window)
        if self._adaptive_limit.limit != before:
            log.info(
                "in_flight_limit",
                limit=self._adaptive_limit.limit,
                before=before,
                phase=self._adaptive_limit.phase.value,
                images_per_s=round(window.rate, 1),
                faults=window.faults,
            )
            self._measure_from(self._now())
        else:
            self._faults = 0
            self._clear(self._now())

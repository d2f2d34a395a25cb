"""Slots at the judge, in simulated time: the limit that they find, and how many are in hand for it."""

import heapq
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from itertools import count

import pytest

from moderation.errors import JudgeTimeout, MalformedAnswer, RuntimeUnavailable, VetlineError
from worker.concurrency.adaptive_limit import AdaptiveLimit
from worker.concurrency.limiter import ConcurrencyLimiter


@dataclass
class Runtime:
    """Works on `capacity` images at once for a second each, first come first served; every turn is in use."""

    capacity: int
    gives_up_s: float = float("inf")  # it answers 500 to whoever waited for longer
    now: float = 0.0
    free_at: list[float] = field(default_factory=list)
    asked: list[tuple[float, int, float, AbstractContextManager[None]]] = field(default_factory=list)
    numbers: Iterator[int] = field(default_factory=count)  # keep what ends at the same time in order
    refused: int = 0

    def answer_one(self, limiter: ConcurrencyLimiter) -> None:
        while limiter.in_flight < limiter.limit:
            self._ask(limiter)
        self.now, _, asked_at, slot = heapq.heappop(self.asked)
        if self.now - asked_at <= self.gives_up_s:
            slot.__exit__(None, None, None)
            return
        self.refused += 1
        with suppress(JudgeTimeout):
            slot.__exit__(JudgeTimeout, JudgeTimeout("it gave up"), None)

    def _ask(self, limiter: ConcurrencyLimiter) -> None:
        slot = limiter.slot(timeout_s=1)
        slot.__enter__()
        begins_at = self.now
        if len(self.free_at) >= self.capacity:
            begins_at = max(begins_at, heapq.heappop(self.free_at))
        heapq.heappush(self.free_at, begins_at + 1)
        heapq.heappush(self.asked, (begins_at + 1, next(self.numbers), self.now, slot))


def turns_for(runtime: Runtime, *, start: int = 8, most: int = 400) -> ConcurrencyLimiter:
    adaptive_limit = AdaptiveLimit(start=start, least=2, most=most)
    return ConcurrencyLimiter(adaptive_limit, most_threads=500, now=lambda: runtime.now)


@pytest.mark.parametrize("capacity", [3, 24, 100])
def test_the_limit_found_is_the_capacity_of_the_runtime(capacity: int) -> None:
    runtime = Runtime(capacity)
    limiter = turns_for(runtime)
    while limiter.phase != "rest":
        runtime.answer_one(limiter)
    assert 0.96 * capacity <= limiter.limit <= 2.1 * capacity + 2


def test_the_timeouts_of_a_runtime_end_with_the_limit_that_brought_them() -> None:
    runtime = Runtime(capacity=24, gives_up_s=3)
    limiter = turns_for(runtime, start=200)
    for _ in range(2000):
        runtime.answer_one(limiter)
    assert 0 < runtime.refused < 500
    runtime.refused = 0
    for _ in range(20_000):
        runtime.answer_one(limiter)
    assert runtime.refused == 0
    assert limiter.limit >= 24


def test_it_begins_at_half_of_what_the_runtime_says_once_and_only_before_the_first_window() -> None:
    runtime = Runtime(capacity=100)
    limiter = ConcurrencyLimiter(
        AdaptiveLimit(start=32, least=2, most=400), most_threads=500, may_expect=True, now=lambda: runtime.now
    )
    limiter.expect(None)
    assert limiter.limit == 32
    limiter.expect(256)
    assert limiter.limit == 128
    limiter.expect(64)
    assert limiter.limit == 128


def test_where_a_start_was_set_what_the_runtime_says_is_left_aside() -> None:
    limiter = turns_for(Runtime(capacity=100), start=6)
    limiter.expect(256)
    assert limiter.limit == 6


def test_with_little_to_do_nothing_is_concluded() -> None:
    runtime = Runtime(capacity=100)
    limiter = turns_for(runtime, start=32)
    for _ in range(2000):
        with limiter.slot(timeout_s=1):
            runtime.now += 0.1
    assert limiter.limit == 32


def ended_with(limiter: ConcurrencyLimiter, error: VetlineError) -> None:
    with pytest.raises(type(error)), limiter.slot(timeout_s=1):
        raise error


def test_timeouts_bring_the_limit_down_at_once() -> None:
    limiter = ConcurrencyLimiter(AdaptiveLimit(start=32, least=2, most=64), most_threads=100)
    for _ in range(3):
        ended_with(limiter, JudgeTimeout("no answer"))
    assert limiter.limit == 22


def test_an_answer_that_cannot_be_read_is_an_answer() -> None:
    limiter = ConcurrencyLimiter(AdaptiveLimit(start=8, least=2, most=64), most_threads=100)
    for _ in range(7):
        ended_with(limiter, MalformedAnswer("no JSON"))
    assert limiter.limit == 8


def test_a_runtime_that_goes_away_is_no_reason_to_ask_it_less() -> None:
    limiter = ConcurrencyLimiter(AdaptiveLimit(start=8, least=2, most=64), most_threads=100)
    for _ in range(20):
        ended_with(limiter, RuntimeUnavailable("it restarts"))
    assert limiter.limit == 8


def test_whoever_finds_no_slot_free_waits_for_one() -> None:
    limiter = ConcurrencyLimiter(AdaptiveLimit(start=1, least=1, most=1), most_threads=2)
    entered, leave = threading.Event(), threading.Event()

    def ask() -> None:
        with limiter.slot(timeout_s=10):
            entered.set()
            leave.wait(10)

    first = threading.Thread(target=ask)
    first.start()
    assert entered.wait(10)
    with pytest.raises(RuntimeUnavailable, match="none of 1 slots"), limiter.slot(timeout_s=0.01):
        pass
    leave.set()
    with limiter.slot(timeout_s=10):
        assert limiter.in_flight == 1
    first.join()


def test_as_many_are_in_hand_as_keep_every_slot_taken() -> None:
    limiter = ConcurrencyLimiter(AdaptiveLimit(start=32, least=2, most=64), most_threads=60)
    assert limiter.busy_threads_limit == 36
    with limiter.working(), limiter.working(), limiter.working():
        assert limiter.busy_threads_limit == 39, "three fetch, and 32 may have a turn"
        with limiter.slot(timeout_s=1):
            assert limiter.busy_threads_limit == 38
    assert limiter.busy_threads == limiter.in_flight == 0


def test_no_more_are_in_hand_than_there_are_threads() -> None:
    limiter = ConcurrencyLimiter(AdaptiveLimit(start=8, least=8, most=8), most_threads=8)
    assert limiter.busy_threads_limit == 8

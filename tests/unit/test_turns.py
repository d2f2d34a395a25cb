"""Turns at the judge, in simulated time: the limit that they find, and how many are in hand for it."""

import heapq
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from itertools import count

import pytest

from moderation.errors import JudgeTimeout, MalformedAnswer, RuntimeUnavailable, VetlineError
from worker.climb import Climb
from worker.turns import Turns


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

    def answer_one(self, turns: Turns) -> None:
        while turns.in_flight < turns.limit:
            self._ask(turns)
        self.now, _, asked_at, turn = heapq.heappop(self.asked)
        if self.now - asked_at <= self.gives_up_s:
            turn.__exit__(None, None, None)
            return
        self.refused += 1
        with suppress(JudgeTimeout):
            turn.__exit__(JudgeTimeout, JudgeTimeout("it gave up"), None)

    def _ask(self, turns: Turns) -> None:
        turn = turns.turn(timeout_s=1)
        turn.__enter__()
        begins_at = self.now
        if len(self.free_at) >= self.capacity:
            begins_at = max(begins_at, heapq.heappop(self.free_at))
        heapq.heappush(self.free_at, begins_at + 1)
        heapq.heappush(self.asked, (begins_at + 1, next(self.numbers), self.now, turn))


def turns_for(runtime: Runtime, *, start: int = 8, most: int = 400) -> Turns:
    climb = Climb(start=start, least=2, most=most)
    return Turns(climb, most_in_hand=500, now=lambda: runtime.now)


@pytest.mark.parametrize("capacity", [3, 24, 100])
def test_the_limit_found_is_the_capacity_of_the_runtime(capacity: int) -> None:
    runtime = Runtime(capacity)
    turns = turns_for(runtime)
    while turns.phase != "rest":
        runtime.answer_one(turns)
    assert 0.96 * capacity <= turns.limit <= 2.1 * capacity + 2


def test_the_timeouts_of_a_runtime_end_with_the_limit_that_brought_them() -> None:
    runtime = Runtime(capacity=24, gives_up_s=3)
    turns = turns_for(runtime, start=200)
    for _ in range(2000):
        runtime.answer_one(turns)
    assert 0 < runtime.refused < 500
    runtime.refused = 0
    for _ in range(20_000):
        runtime.answer_one(turns)
    assert runtime.refused == 0
    assert turns.limit >= 24


def test_it_begins_at_half_of_what_the_runtime_says_once_and_only_before_the_first_window() -> None:
    runtime = Runtime(capacity=100)
    turns = Turns(
        Climb(start=32, least=2, most=400), most_in_hand=500, may_expect=True, now=lambda: runtime.now
    )
    turns.expect(None)
    assert turns.limit == 32
    turns.expect(256)
    assert turns.limit == 128
    turns.expect(64)
    assert turns.limit == 128


def test_where_a_start_was_set_what_the_runtime_says_is_left_aside() -> None:
    turns = turns_for(Runtime(capacity=100), start=6)
    turns.expect(256)
    assert turns.limit == 6


def test_with_little_to_do_nothing_is_concluded() -> None:
    runtime = Runtime(capacity=100)
    turns = turns_for(runtime, start=32)
    for _ in range(2000):
        with turns.turn(timeout_s=1):
            runtime.now += 0.1
    assert turns.limit == 32


def ended_with(turns: Turns, error: VetlineError) -> None:
    with pytest.raises(type(error)), turns.turn(timeout_s=1):
        raise error


def test_timeouts_bring_the_limit_down_at_once() -> None:
    turns = Turns(Climb(start=32, least=2, most=64), most_in_hand=100)
    for _ in range(3):
        ended_with(turns, JudgeTimeout("no answer"))
    assert turns.limit == 22


def test_an_answer_that_cannot_be_read_is_an_answer() -> None:
    turns = Turns(Climb(start=8, least=2, most=64), most_in_hand=100)
    for _ in range(7):
        ended_with(turns, MalformedAnswer("no JSON"))
    assert turns.limit == 8


def test_a_runtime_that_goes_away_is_no_reason_to_ask_it_less() -> None:
    turns = Turns(Climb(start=8, least=2, most=64), most_in_hand=100)
    for _ in range(20):
        ended_with(turns, RuntimeUnavailable("it restarts"))
    assert turns.limit == 8


def test_whoever_finds_no_turn_free_waits_for_one() -> None:
    turns = Turns(Climb(start=1, least=1, most=1), most_in_hand=2)
    entered, leave = threading.Event(), threading.Event()

    def ask() -> None:
        with turns.turn(timeout_s=10):
            entered.set()
            leave.wait(10)

    first = threading.Thread(target=ask)
    first.start()
    assert entered.wait(10)
    with pytest.raises(RuntimeUnavailable, match="none of 1 turns"), turns.turn(timeout_s=0.01):
        pass
    leave.set()
    with turns.turn(timeout_s=10):
        assert turns.in_flight == 1
    first.join()


def test_as_many_are_in_hand_as_keep_every_turn_taken() -> None:
    turns = Turns(Climb(start=32, least=2, most=64), most_in_hand=60)
    assert turns.most_in_hand == 36
    with turns.working(), turns.working(), turns.working():
        assert turns.most_in_hand == 39, "three fetch, and 32 may have a turn"
        with turns.turn(timeout_s=1):
            assert turns.most_in_hand == 38
    assert turns.busy == turns.in_flight == 0


def test_no_more_are_in_hand_than_there_are_threads() -> None:
    turns = Turns(Climb(start=8, least=8, most=8), most_in_hand=8)
    assert turns.most_in_hand == 8

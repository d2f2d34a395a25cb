"""Work that keeps a little behind its source: what overlaps, and what comes out where one of the two fails."""

import threading
from collections.abc import Iterator
from contextvars import ContextVar

import pytest

from producer.pipelined import pipelined


def test_the_next_item_is_drawn_while_one_is_worked_on() -> None:
    second_is_drawn = threading.Event()

    def source() -> Iterator[int]:
        yield 1
        second_is_drawn.set()
        yield 2

    def work(item: int) -> int:
        assert second_is_drawn.wait(10)
        return 10 * item

    assert list(pipelined(work, source())) == [10, 20]


def test_two_are_worked_on_at_once_and_one_more_is_drawn() -> None:
    drawn: list[int] = []
    results = pipelined(lambda item: item, (drawn.append(n) or n for n in range(9)))
    assert next(results) == 0
    assert drawn == [0, 1, 2]
    results.close()


def test_an_error_of_the_source_comes_after_what_was_made_before_it() -> None:
    def source() -> Iterator[int]:
        yield 1
        raise LookupError("the second")

    results = pipelined(str, source())
    assert next(results) == "1"
    with pytest.raises(LookupError, match="the second"):
        next(results)


def test_after_an_error_of_the_work_no_further_item_is_begun() -> None:
    worked_on: list[int] = []

    def work(item: int) -> int:
        worked_on.append(item)
        return 1 // item

    with pytest.raises(ZeroDivisionError):
        list(pipelined(work, [0, 1, 2, 3]))
    assert sorted(worked_on) == [0, 1]


def test_the_callers_context_is_there_and_items_are_drawn_in_its_thread() -> None:
    who: ContextVar[str] = ContextVar("who")
    who.set("the caller")
    threads: set[str] = set()

    def source() -> Iterator[int]:
        for number in range(3):
            threads.add(threading.current_thread().name)
            yield number

    assert list(pipelined(lambda _: who.get(), source())) == ["the caller"] * 3
    assert threads == {threading.current_thread().name}

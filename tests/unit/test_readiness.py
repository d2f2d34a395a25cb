"""The board of what a worker waits for."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from worker.readiness import Readiness


def clock() -> Iterator[datetime]:
    moment = datetime(2026, 11, 24, 10, 30, tzinfo=UTC)
    while True:
        yield moment
        moment += timedelta(seconds=1)


def test_a_worker_that_waits_for_nothing_is_ready() -> None:
    board = Readiness()
    assert board.is_ready
    board.wait_for("runtime", "SGLang loads its weights")
    assert not board.is_ready
    board.clear("runtime")
    assert board.is_ready


def test_it_is_ready_only_once_everything_is_well() -> None:
    board = Readiness()
    board.wait_for("database", "Postgres does not answer")
    board.wait_for("runtime", "SGLang is restarting")
    board.clear("database")
    assert [item.name for item in board.waiting()] == ["runtime"]
    assert not board.is_ready


def test_a_new_reason_is_the_same_wait() -> None:
    ticks = clock()
    board = Readiness(now=lambda: next(ticks))
    board.wait_for("runtime", "starts")
    board.wait_for("runtime", "loads its weights")
    (waiting,) = board.waiting()
    assert waiting.reason == "loads its weights"
    assert str(waiting) == "runtime: loads its weights (since 10:30:00 UTC)"


def test_what_comes_back_waits_anew() -> None:
    ticks = clock()
    board = Readiness(now=lambda: next(ticks))
    board.wait_for("runtime", "starts")
    first = board.waiting()[0].since
    board.clear("runtime")
    board.wait_for("runtime", "restarts")
    assert board.waiting()[0].since > first


def test_clearing_what_is_not_waited_for_does_nothing() -> None:
    Readiness().clear("runtime")

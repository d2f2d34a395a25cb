"""The conditions that a worker waits for."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from worker.health.readiness import Readiness


def clock() -> Iterator[datetime]:
    moment = datetime(2026, 11, 24, 10, 30, tzinfo=UTC)
    while True:
        yield moment
        moment += timedelta(seconds=1)


def test_a_worker_that_waits_for_nothing_is_ready() -> None:
    conditions = Readiness()
    assert conditions.is_ready
    conditions.wait_for("runtime", "SGLang loads its weights")
    assert not conditions.is_ready
    conditions.clear("runtime")
    assert conditions.is_ready


def test_it_is_ready_only_once_everything_is_well() -> None:
    conditions = Readiness()
    conditions.wait_for("database", "Postgres does not answer")
    conditions.wait_for("runtime", "SGLang is restarting")
    conditions.clear("database")
    assert [item.name for item in conditions.waiting()] == ["runtime"]
    assert not conditions.is_ready


def test_a_new_reason_is_the_same_wait() -> None:
    ticks = clock()
    conditions = Readiness(now=lambda: next(ticks))
    conditions.wait_for("runtime", "starts")
    conditions.wait_for("runtime", "loads its weights")
    (waiting,) = conditions.waiting()
    assert waiting.reason == "loads its weights"
    assert str(waiting) == "runtime: loads its weights (since 10:30:00 UTC)"


def test_what_comes_back_waits_anew() -> None:
    ticks = clock()
    conditions = Readiness(now=lambda: next(ticks))
    conditions.wait_for("runtime", "starts")
    first = conditions.waiting()[0].since
    conditions.clear("runtime")
    conditions.wait_for("runtime", "restarts")
    assert conditions.waiting()[0].since > first


def test_clearing_what_is_not_waited_for_does_nothing() -> None:
    Readiness().clear("runtime")

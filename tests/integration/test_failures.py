"""Failed items are found by what they have in common, and go back in at a pace."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from sqlalchemy import Engine, text

from moderation.cli.filters import age, selected
from moderation.errors import HostUnavailable, InvalidSubmission, NotFound, VetlineError
from moderation.ledger.claim import claim
from moderation.ledger.engine import open_ledger
from moderation.ledger.failures import FailureGroup, failure_counts, failure_groups, failures
from moderation.ledger.outcomes import fail
from moderation.ledger.policies import seed_builtin
from moderation.ledger.retry import count_retryable, retry_failed
from moderation.ledger.selection import Selection
from moderation.ledger.stuck import Stuck, count_stuck, free_stuck
from tests.support.ledger import attempts, claimed, row, submitted


@pytest.fixture
def ledger(postgres_url: str) -> Iterator[Engine]:
    engine = open_ledger(postgres_url)
    seed_builtin(engine)
    yield engine
    engine.dispose()


def failed(ledger: Engine, uri: str, error: VetlineError, *, batch: str | None = None) -> UUID:
    item = claimed(ledger, submitted(ledger, uri, batch=batch))
    fail(ledger, item, error, worker="w1", timings_ms={})
    return item.id


def shift(ledger: Engine, id_: UUID, column: str, by_s: float) -> None:
    with ledger.connect() as connection:
        connection.execute(
            text(f"UPDATE assessment SET {column} = {column} + make_interval(secs => :by) WHERE id = :id"),
            {"by": by_s, "id": id_},
        )


@pytest.mark.parametrize(
    ("uri", "host"),
    [
        ("https://images.test/a.jpg", "images.test"),
        ("https://u:p%40w@Images.TEST:8443/a.jpg?at=@x", "images.test"),
        ("http://[2001:db8::1]:80/a.jpg", "[2001:db8::1]"),
        ("s3://uploads/folder/a.jpg", "uploads"),
        ("file:///srv/images/a.jpg", ""),
        ("data:image/png;base64,aGVsbG8=", ""),
    ],
)
def test_the_host_of_an_image_is_what_its_uri_names(ledger: Engine, uri: str, host: str) -> None:
    id_ = failed(ledger, uri, NotFound("404"))
    (found,) = failures(ledger, Selection(host=host))
    assert (found["id"], found["host"]) == (id_, host)
    assert failures(ledger, Selection(host="elsewhere.test")) == []


def test_failures_are_counted_by_what_they_have_in_common(ledger: Engine) -> None:
    for number in range(3):
        failed(ledger, f"https://down.test/{number}.jpg", HostUnavailable("502"), batch="b")
    failed(ledger, "https://up.test/x.jpg", NotFound("404"))
    by_both = failure_groups(ledger, Selection(), [FailureGroup.CODE, FailureGroup.HOST])
    assert [(g["code"], g["host"], g["n"]) for g in by_both] == [
        ("host_unavailable", "down.test", 3),
        ("not_found", "up.test", 1),
    ]
    assert [g["n"] for g in failure_groups(ledger, Selection(), [FailureGroup.BATCH])] == [3, 1]
    assert failure_counts(ledger, Selection(host="down.test")) == {"host_unavailable": 3}


def test_age_is_since_the_failure(ledger: Engine) -> None:
    old, new = (failed(ledger, f"https://x.test/{n}.jpg", NotFound("404")) for n in range(2))
    shift(ledger, old, "ended_at", -7200)
    assert [f["id"] for f in failures(ledger, selected(older_than="1h"))] == [old]
    assert [f["id"] for f in failures(ledger, selected(newer_than="1h"))] == [new]


@pytest.mark.parametrize(("words", "span"), [("90s", 90), ("15m", 900), ("1.5h", 5400), ("7d", 604_800)])
def test_an_age_is_written_as_people_write_it(words: str, span: float) -> None:
    assert age(words) == timedelta(seconds=span)


@pytest.mark.parametrize("words", ["", "h", "-1h", "2 weeks", "1h30m", "999999999d"])
def test_what_is_no_age_is_refused(words: str) -> None:
    with pytest.raises(InvalidSubmission, match="an age is"):
        age(words)


def test_retried_items_become_due_one_after_the_other_and_keep_their_history(ledger: Engine) -> None:
    ids = [failed(ledger, f"https://x.test/{n}.jpg", NotFound("404")) for n in range(5)]
    before = datetime.now(UTC)
    first = retry_failed(ledger, Selection(), limit=3, every_s=10)
    rest = retry_failed(ledger, Selection(), limit=3, first_s=30, every_s=10)
    assert sorted(first + rest) == sorted(ids)
    due_s = sorted((row(ledger, id_)["ring_at"] - before).total_seconds() for id_ in ids)
    assert due_s == pytest.approx([0, 10, 20, 30, 40], abs=2)
    assert all(len(attempts(ledger, id_)) == 1 for id_ in ids)
    taken = claim(ledger, ids, worker="w2", lease_s=45)
    assert len(taken) == 1, "a message that comes early claims nothing"
    assert (taken[0].attempt, taken[0].charged) == (2, 1)


def test_what_is_stuck_is_counted_then_freed(ledger: Engine) -> None:
    """Nobody sweeps: a dead worker's item, a ring that nobody answered, and one that may yet be answered."""
    dead, unanswered, fresh = (submitted(ledger, f"https://x.test/{n}.jpg", rung=n > 0) for n in range(3))
    claimed(ledger, dead)
    shift(ledger, dead, "lease_until", -600)
    shift(ledger, unanswered, "rung_at", -600)
    assert count_stuck(ledger, after_s=60) == Stuck(leases=1, rings=1)
    assert free_stuck(ledger, after_s=60, max_crashes=10, worker="me") == Stuck(leases=1, rings=1)
    assert count_stuck(ledger, after_s=60) == Stuck(leases=0, rings=0)
    assert row(ledger, dead)["crashes"] == 1
    assert row(ledger, fresh)["ring_at"] is None
    assert {c.id for c in claim(ledger, [dead, unanswered], worker="w2", lease_s=45)} == {dead, unanswered}


def test_what_cannot_be_fetched_any_more_is_neither_counted_nor_retried(ledger: Engine) -> None:
    kept, gone = (failed(ledger, f"https://x.test/{n}.jpg", NotFound("404")) for n in range(2))
    with ledger.connect() as connection:
        connection.execute(text("UPDATE assessment SET cleared_at = now() WHERE id = :id"), {"id": gone})
    assert count_retryable(ledger, Selection()) == 1
    assert retry_failed(ledger, Selection()) == [kept]

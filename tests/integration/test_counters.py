"""The counts: exact after each commit, whatever wrote, and the same after what is old was added up."""

import pytest
from sqlalchemy import Engine, text

from moderation.errors import NotFound, QueueFull
from moderation.ledger import counters, migrate
from moderation.ledger.engine import open_ledger
from moderation.ledger.outcomes import fail, give_back
from moderation.ledger.retry import cancel_queued
from moderation.ledger.selection import Selection
from moderation.ledger.sweep import expire
from moderation.settings import QueueSettings
from producer import Client
from producer.backpressure import Backpressure
from tests.support.ledger import POLICY, claimed, record, submitted, verdict


def exact(ledger: Engine) -> dict[str, int]:
    with ledger.connect() as connection:
        return {
            row.state: row.n
            for row in connection.execute(text("SELECT state, count(*) AS n FROM assessment GROUP BY state"))
        }


def a_minute_passes(ledger: Engine) -> None:
    with ledger.connect() as connection:
        connection.execute(text("UPDATE tally_change SET at = at - interval '70 s'"))
    expire(ledger, worker="sweeper", max_crashes=10)


def test_counts_are_exact_before_and_after_they_are_added_up(ledger: Engine) -> None:
    record(ledger, claimed(ledger, submitted(ledger, batch="b")), verdict(), worker="w1")
    fail(ledger, claimed(ledger), NotFound("404"), worker="w1", timings_ms={})
    give_back(ledger, claimed(ledger), worker="w1")
    claimed(ledger)
    cancel_queued(ledger, Selection(ids=(submitted(ledger, batch="b", tenant="t"),)))
    assert counters.counts(ledger) == exact(ledger)
    assert counters.pace(ledger) == pytest.approx(2 / 60)
    assert counters.pace(ledger, batch="b") == pytest.approx(1 / 60)
    a_minute_passes(ledger)
    assert counters.counts(ledger) == exact(ledger)
    assert counters.counts(ledger, batch="b") == {"done": 1, "cancelled": 1}
    assert (counters.pace(ledger), counters.queued(ledger)) == (0, 1)


def test_a_write_that_is_rolled_back_counts_for_nothing(ledger: Engine) -> None:
    submitted(ledger)
    with ledger.execution_options(isolation_level="READ COMMITTED").connect() as connection:
        connection.execute(text("UPDATE assessment SET state = 'cancelled', ring_at = NULL"))
        connection.rollback()
    assert counters.counts(ledger) == {"queued": 1}


def test_what_stood_before_the_counts_were_kept_is_counted(empty_postgres_url: str) -> None:
    engine = open_ledger(empty_postgres_url)
    migrate.upgrade(engine, "0003")
    with engine.connect() as connection:
        connection.execute(
            text(
                "INSERT INTO policy_revision (policy, revision, title, document, prompt, prompt_sha256, created_by, reason)"
                " VALUES ('p', 1, 't', '{}', 'p', 's', 'me', 'r');"
                "INSERT INTO assessment (id, uri, policy, policy_revision_id, priority, ring_at, batch)"
                " SELECT gen_random_uuid(), 'u', 'p', 1, 1, now(), 'b' FROM generate_series(1, 3)"
            )
        )
    migrate.upgrade(engine)
    assert counters.counts(engine, batch="b") == {"queued": 3}
    engine.dispose()


def test_a_full_queue_refuses_by_name_and_takes_more_once_there_is_room(ledger: Engine) -> None:
    bound = Backpressure(ledger, QueueSettings(bound=3))
    bound.admit(2)
    first = submitted(ledger)
    submitted(ledger)
    with pytest.raises(QueueFull, match="2 assessments wait and 3 may; submit 2 later"):
        bound.admit(2)
    cancel_queued(ledger, Selection(ids=(first,)))
    bound.admit(2)


def test_a_producer_that_waits_goes_on_once_there_is_room(ledger: Engine) -> None:
    ids = [submitted(ledger) for _ in range(2)]
    waited: list[float] = []

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        cancel_queued(ledger, Selection(ids=(ids.pop(),)))

    bound = Backpressure(ledger, QueueSettings(bound=2, when_full="wait"), sleep=sleep)
    bound.admit(1)
    assert len(waited) == 1
    with pytest.raises(QueueFull):
        bound.admit(3)  # would never fit


def test_a_client_is_refused_by_the_bound_of_its_settings(
    ledger: Engine, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VETLINE_QUEUE_BOUND", "2")
    with Client(postgres_url, None) as client:
        assert client.submit_many(["https://images.test/1.jpg"] * 2, POLICY).accepted == 2
        with pytest.raises(QueueFull):
            client.submit("https://images.test/3.jpg", POLICY)
    assert counters.counts(ledger) == {"queued": 2}

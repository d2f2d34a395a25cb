"""The protocol of the ledger, statement by statement, on a real Postgres."""

import threading
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError
from sqlmodel import SQLModel

from moderation.assessment import Submission
from moderation.errors import (
    HostUnavailable,
    LedgerUnavailable,
    NotFound,
    RuntimeCrashed,
    RuntimeUnavailable,
    UnknownPolicy,
)
from moderation.ledger import counters, migrate
from moderation.ledger.claim import beat, claim, defer_suspects
from moderation.ledger.engine import open_ledger
from moderation.ledger.explain import explanation as tell_story
from moderation.ledger.failures import failure_counts
from moderation.ledger.outcomes import WriteResult, fail, give_back, give_back_crashed, try_later
from moderation.ledger.policies import load_revision, pin
from moderation.ledger.relay import Due, ring_due
from moderation.ledger.retry import cancel_queued, retry_failed
from moderation.ledger.selection import Selection
from moderation.ledger.submit import new_id, submit
from moderation.ledger.sweep import any_overdue, expire, find_lost
from moderation.verdict import Ask, Rung
from tests.support.ledger import HIGH, LOW, POLICY, attempts, claimed, record, row, submitted, verdict


def test_migrations_and_models_agree(ledger: Engine) -> None:
    with ledger.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_server_default": True})
        assert compare_metadata(context, SQLModel.metadata) == []
    assert migrate.current(ledger) == migrate.head()


def test_two_deployments_that_migrate_at_once_take_turns(empty_postgres_url: str) -> None:
    engines = [open_ledger(empty_postgres_url) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(migrate.upgrade, engines)) == {migrate.head()}
    for engine in engines:
        engine.dispose()


def test_the_same_key_is_one_assessment_also_from_64_threads_at_once(ledger: Engine) -> None:
    pinned = pin(ledger, [POLICY])
    together = threading.Barrier(64)

    def one(number: int) -> UUID:
        submission = Submission(uri=f"https://images.test/{number}.jpg", policy=POLICY, key="upload-1")
        together.wait()
        return submit(ledger, [submission], pinned, [new_id()])[0].id

    with ThreadPoolExecutor(64) as pool:
        ids = set(pool.map(one, range(64)))
    assert len(ids) == 1
    assert counters.counts(ledger) == {"queued": 1}


def test_a_key_that_comes_twice_in_one_chunk_is_one_assessment(ledger: Engine) -> None:
    same = Submission(uri="https://images.test/1.jpg", policy=POLICY, key="k")
    first, second = submit(ledger, [same, same], pin(ledger, [POLICY]), [new_id(), new_id()])
    assert (first.known, second.known) == (False, True)
    assert first.id == second.id


def test_a_submission_repeated_after_a_lost_reply_adds_nothing(ledger: Engine) -> None:
    submissions = [Submission(uri="https://images.test/1.jpg", policy=POLICY, key=key) for key in (None, "k")]
    pinned, ids = pin(ledger, [POLICY]), [new_id(), new_id()]
    assert submit(ledger, submissions, pinned, ids) == submit(ledger, submissions, pinned, ids)
    assert counters.counts(ledger) == {"queued": 2}


def test_the_same_key_under_another_policy_is_another_assessment(ledger: Engine) -> None:
    assert submitted(ledger, key="k") != submitted(ledger, key="k", policy="strict")


def test_a_policy_is_pinned_to_its_current_revision_or_the_named_one(ledger: Engine) -> None:
    pinned = pin(ledger, [POLICY, f"{POLICY}@1"])
    assert {p.ref for p in pinned.values()} == {f"{POLICY}@1"}
    assert load_revision(ledger, pinned[POLICY].id).ref == f"{POLICY}@1"
    for wrong in ("no-such-policy", f"{POLICY}@99"):
        with pytest.raises(UnknownPolicy, match="no policy"):
            pin(ledger, [wrong])


def test_a_row_is_claimed_once_however_many_ask(ledger: Engine) -> None:
    id_ = submitted(ledger)
    with ThreadPoolExecutor(16) as pool:
        taken = list(pool.map(lambda n: claim(ledger, [id_], worker=f"w{n}", lease_s=45), range(16)))
    assert sum(len(claims) for claims in taken) == 1
    standing = row(ledger, id_)
    assert (standing["state"], standing["attempt"], standing["charged"]) == ("running", 1, 1)


def test_a_worker_that_answers_the_ring_before_the_sweeper_committed_gets_the_row(ledger: Engine) -> None:
    id_ = submitted(ledger)
    with ThreadPoolExecutor(1) as pool:
        answers = []

        def ring(_: object) -> None:
            answers.append(pool.submit(claim, ledger, [id_], worker="fast", lease_s=45))
            with pytest.raises(TimeoutError):
                answers[0].result(timeout=0.2)  # it waits for the sweeper's commit

        ring_due(ledger, ring, urgent=10, others=10)
        assert [c.id for c in answers[0].result(timeout=10)] == [id_]


def test_a_verdict_is_recorded_with_its_attempt_and_asks(ledger: Engine) -> None:
    taken = claimed(ledger)
    ask = Ask(rung=Rung.STRICT, raw="{...}", elapsed_ms=12.0)
    assert record(ledger, taken, verdict(asks=(ask,)), worker="w1") is WriteResult.WRITTEN
    story = tell_story(ledger, taken.id)
    assert story is not None
    assert (story["state"], story["verdict"]["rating"]) == ("done", "Safe")
    (attempt,) = story["attempts"]
    assert (attempt["outcome"], attempt["asks"][0]["raw"]) == ("done", "{...}")


def test_a_record_whose_reply_was_lost_is_told_from_one_that_came_too_late(ledger: Engine) -> None:
    taken = claimed(ledger)
    record(ledger, taken, verdict(), worker="w1")
    assert record(ledger, taken, verdict(), worker="w1") is WriteResult.REPEATED
    assert record(ledger, taken, verdict(), worker="w2") is WriteResult.LOST


def test_what_a_model_says_is_kept_though_postgres_cannot_hold_it(ledger: Engine) -> None:
    taken = claimed(ledger)
    odd = "a\0b\udc80c"
    answer = verdict(raw_output=odd, rationale=odd, asks=(Ask(rung=Rung.STRICT, raw=odd),))
    assert record(ledger, taken, answer, worker="w1") is WriteResult.WRITTEN
    story = tell_story(ledger, taken.id)
    assert story is not None
    assert story["verdict"]["raw_output"] == "a\\u0000b\\udc80c"
    assert story["attempts"][0]["asks"][0]["raw"] == "a\\u0000b\\udc80c"


def test_a_writer_whose_lease_was_taken_changes_nothing(ledger: Engine) -> None:
    stale = claimed(ledger, lease_s=-1)
    assert expire(ledger, worker="sweeper", max_crashes=10) == [stale.id]
    fresh = claimed(ledger, stale.id, worker="w2")
    assert fresh.attempt == stale.attempt + 1
    error = NotFound("gone")
    assert record(ledger, stale, verdict(), worker="w1") is WriteResult.LOST
    assert fail(ledger, stale, error, worker="w1", timings_ms={}) is WriteResult.LOST
    assert give_back(ledger, stale, worker="w1") is WriteResult.LOST
    assert row(ledger, stale.id)["state"] == "running"
    assert record(ledger, fresh, verdict(), worker="w2") is WriteResult.WRITTEN
    assert [a["outcome"] for a in attempts(ledger, stale.id)] == ["crashed", "done"]


def test_a_beat_renews_what_is_held_and_names_what_was_lost(ledger: Engine) -> None:
    held, lost = claimed(ledger, lease_s=5), claimed(ledger, lease_s=-1)
    expire(ledger, worker="sweeper", max_crashes=10)
    assert beat(ledger, [held, lost], lease_s=45) == {lost.id}
    assert row(ledger, held.id)["lease_until"] > held.lease_until
    assert row(ledger, lost.id)["state"] == "queued"


def test_an_ended_lease_is_a_crash_and_no_charge_and_goes_first(ledger: Engine) -> None:
    dead = claimed(ledger, lease_s=-1)
    expire(ledger, worker="sweeper", max_crashes=10)
    standing = row(ledger, dead.id)
    assert (standing["charged"], standing["crashes"], standing["error_code"]) == (0, 1, "worker_lost")
    assert [due.id for due in rung(ledger, only_first=True)] == [dead.id]


def test_an_item_that_takes_whole_machines_down_is_set_aside_in_the_end(ledger: Engine) -> None:
    id_ = submitted(ledger)
    for _ in range(3):
        claimed(ledger, id_, lease_s=-1)
        expire(ledger, worker="sweeper", max_crashes=3)
    assert (row(ledger, id_)["state"], row(ledger, id_)["error_code"]) == ("failed", "poison")


def test_giving_back_is_uncharged_and_trying_later_is_charged_and_waits(ledger: Engine) -> None:
    given, later = claimed(ledger), claimed(ledger)
    assert (
        give_back(ledger, given, worker="w1", error=RuntimeUnavailable("restarting")) is WriteResult.WRITTEN
    )
    error = HostUnavailable("503")
    assert try_later(ledger, later, error, worker="w1", delay_s=60, timings_ms={}) is WriteResult.WRITTEN
    assert row(ledger, given.id)["charged"] == 0
    assert row(ledger, later.id)["charged"] == 1
    assert claim(ledger, [given.id, later.id], worker="w2", lease_s=45)[0].id == given.id
    assert row(ledger, later.id)["state"] == "queued", "no claim before its time"


def rung(engine: Engine, *, others: int = 100, only_first: bool = False) -> list[Due]:
    seen: list[Due] = []
    ring_due(engine, seen.extend, urgent=100, others=others, low_share=0, only_first=only_first)
    return seen


def test_what_its_runtime_went_down_with_is_given_back_uncharged_and_counted_as_a_crash(
    ledger: Engine,
) -> None:
    id_ = submitted(ledger)
    for crashes in (1, 2):
        item = claimed(ledger, id_)
        error = RuntimeCrashed("signal 9")
        assert give_back_crashed(ledger, item, error, worker="w1") is WriteResult.WRITTEN
        assert give_back_crashed(ledger, item, error, worker="w1") is WriteResult.REPEATED
        standing = row(ledger, id_)
        assert (standing["state"], standing["charged"], standing["crashes"]) == ("queued", 0, crashes)
    assert claim(ledger, [id_], worker="w1", lease_s=45, suspect=2) == [], "a suspect, for whoever is alone"
    assert {a["error_code"] for a in attempts(ledger, id_)} == {"runtime_crashed"}


def test_due_rows_ring_in_order_of_priority_and_no_row_twice_at_once(ledger: Engine) -> None:
    low, normal, high = (submitted(ledger, priority=p) for p in (LOW, 1, HIGH))
    assert [due.id for due in rung(ledger, others=1)] == [high, normal]
    assert [due.id for due in rung(ledger)] == [low]
    assert rung(ledger) == []


def test_a_ring_whose_message_is_gone_rings_again_before_all_others(ledger: Engine) -> None:
    waits, gone, fresh = submitted(ledger, rung=True), submitted(ledger, rung=True), submitted(ledger)
    assert not any_overdue(ledger, after_s=60)
    assert any_overdue(ledger, after_s=-1)
    assert find_lost(ledger, [waits], after_s=60) == []
    assert find_lost(ledger, [waits], after_s=-1) == [gone]
    assert [due.id for due in rung(ledger, only_first=True)] == [gone]
    assert [due.id for due in rung(ledger)] == [fresh]


def test_what_waits_for_its_time_does_not_ring_early(ledger: Engine) -> None:
    taken = claimed(ledger)
    try_later(ledger, taken, HostUnavailable("503"), worker="w1", delay_s=10, timings_ms={})
    assert rung(ledger) == []
    assert find_lost(ledger, [], after_s=-1) == []


def test_a_ring_that_fails_leaves_the_rows_due(ledger: Engine) -> None:
    id_ = submitted(ledger)

    def broken(_: object) -> None:
        raise ConnectionError("redis is away")

    with pytest.raises(ConnectionError):
        ring_due(ledger, broken, urgent=10, others=10)
    assert [due.id for due in rung(ledger)] == [id_]


def test_one_sweeper_at_a_time(ledger: Engine, postgres_url: str) -> None:
    other = open_ledger(postgres_url)
    inside, leave = threading.Event(), threading.Event()

    def slow(_: object) -> None:
        inside.set()
        leave.wait(10)

    submitted(ledger)
    sweeping = threading.Thread(target=lambda: ring_due(other, slow, urgent=10, others=10))
    sweeping.start()
    assert inside.wait(10)
    assert expire(ledger, worker="w2", max_crashes=10) is None
    leave.set()
    sweeping.join()
    assert expire(ledger, worker="w2", max_crashes=10) == []
    other.dispose()


def test_a_retry_keeps_history_and_a_terminal_row_stays(ledger: Engine) -> None:
    failed, done = claimed(ledger), claimed(ledger)
    fail(ledger, failed, NotFound("404"), worker="w1", timings_ms={})
    record(ledger, done, verdict(), worker="w1")
    assert failure_counts(ledger, Selection()) == {"not_found": 1}
    assert retry_failed(ledger, Selection(codes=("undecodable",))) == []
    assert retry_failed(ledger, Selection(codes=("not_found",))) == [failed.id]
    again = claimed(ledger, failed.id)
    assert (again.attempt, again.charged, again.crashes) == (2, 1, 0)
    assert claim(ledger, [done.id], worker="w2", lease_s=45) == []
    assert [a["outcome"] for a in attempts(ledger, failed.id)] == ["failed"]


def test_only_what_no_worker_holds_is_cancelled(ledger: Engine) -> None:
    held, waiting = claimed(ledger), submitted(ledger)
    assert cancel_queued(ledger, Selection()) == [waiting]
    assert claim(ledger, [waiting], worker="w1", lease_s=45) == []
    assert row(ledger, held.id)["state"] == "running"


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE verdict SET rating = 'Safe'",
        "DELETE FROM verdict",
        "UPDATE attempt SET outcome = 'done'",
        "UPDATE policy_revision SET prompt = 'be kind'",
    ],
)
def test_what_an_auditor_relies_on_cannot_be_changed(ledger: Engine, statement: str) -> None:
    taken = claimed(ledger)
    record(ledger, taken, verdict(), worker="w1")
    with ledger.connect() as connection, pytest.raises(DBAPIError, match="append-only"):
        connection.execute(text(statement))


def test_an_absent_postgres_is_one_clear_error() -> None:
    engine = open_ledger("postgresql://nobody@127.0.0.1:1/none")
    with pytest.raises(LedgerUnavailable, match="Postgres"):
        counters.counts(engine)


def test_suspects_are_left_out_where_asked_and_ring_again_soon(ledger: Engine) -> None:
    dead = claimed(ledger, lease_s=-1)
    expire(ledger, worker="sweeper", max_crashes=10)
    rung(ledger)
    assert claim(ledger, [dead.id], worker="w1", lease_s=45, suspect=1) == []
    assert defer_suspects(ledger, [dead.id], suspect=1, delay_s=0)
    assert not defer_suspects(ledger, [dead.id], suspect=2, delay_s=0)
    assert [due.id for due in rung(ledger)] == [dead.id]
    assert claim(ledger, [dead.id], worker="w1", lease_s=45, suspect=2)[0].crashes == 1

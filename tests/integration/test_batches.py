"""Several at a time: verdicts written in groups, rows rung by one message, claims whose reply was lost."""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from uuid import UUID

import pytest
import redis
from sqlalchemy import Engine

from moderation.doorbell import Doorbell
from moderation.errors import LedgerUnavailable
from moderation.ledger.outcomes import WriteResult
from moderation.ledger.record import Judged, record_all
from moderation.ledger.relay import Due, ring_due
from moderation.ledger.sweep import expire
from moderation.verdict import Rating
from tests.support.conservation import violations
from tests.support.ledger import attempts, claimed, row, submitted, verdict
from tests.support.processing import HeldWriter, dispatcher, processor
from tests.support.proxy import Proxy
from tests.support.waiting import wait_for
from worker.events.outcome import Outcome, OutcomeKind, in_words
from worker.processing.batch_recorder import BatchRecorder
from worker.processing.held_claims import HeldClaims
from worker.processing.item_pace import ItemPace


def test_each_of_a_group_is_answered_by_itself(ledger: Engine) -> None:
    good, stale, again = claimed(ledger), claimed(ledger, lease_s=-1), claimed(ledger)
    expire(ledger, worker="sweeper", max_crashes=10)
    record_all(ledger, [(again, verdict())], worker="w1")
    group = [(stale, verdict()), (good, verdict(rating=Rating.UNSAFE)), (again, verdict())]
    assert record_all(ledger, group, worker="w1") == [
        WriteResult.LOST,
        WriteResult.WRITTEN,
        WriteResult.REPEATED,
    ]
    assert record_all(ledger, group, worker="w1") == [
        WriteResult.LOST,
        WriteResult.REPEATED,
        WriteResult.REPEATED,
    ]
    assert record_all(ledger, group, worker="w2") == [WriteResult.LOST] * 3
    assert violations(ledger) == []
    assert row(ledger, stale.id)["state"] == "queued"


def test_a_group_whose_reply_was_lost_is_settled_one_by_one(
    ledger: Engine, far: Engine, proxy: Proxy
) -> None:
    group = [(claimed(ledger), verdict()) for _ in range(5)]
    proxy.cut_after(down=0)
    with pytest.raises(LedgerUnavailable):
        record_all(far, group, worker="w1")
    assert set(record_all(far, group, worker="w1")) == {WriteResult.REPEATED}
    assert violations(ledger) == []


def test_groups_that_hold_the_same_rows_in_other_orders_do_not_wait_for_each_other(ledger: Engine) -> None:
    """Two writers with all the same claims, one of whom stood still: each row goes to one of them."""
    held = [claimed(ledger) for _ in range(40)]
    together = threading.Barrier(2)

    def write(group: Sequence[Judged]) -> list[WriteResult]:
        together.wait()
        return record_all(ledger, group, worker="w1")

    group = [(item, verdict()) for item in held]
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(write, [group, group[::-1]])
    for one, other in zip(first, second[::-1], strict=True):
        assert sorted([one, other]) == [WriteResult.REPEATED, WriteResult.WRITTEN]
    assert violations(ledger) == []


def test_what_comes_while_a_group_is_written_is_the_next_group(ledger: Engine) -> None:
    claims = [claimed(ledger) for _ in range(10)]
    with dispatcher(ledger) as webhooks:
        writer = HeldWriter(ledger, webhooks)
        recorder = BatchRecorder(writer, HeldClaims(), ItemPace(16))
        first = recorder.put(claims[0], verdict())
        assert writer.inside.wait(10)
        others = [recorder.put(claim, verdict()) for claim in claims[1:]]
        writer.leave.set()
        assert {future.result(timeout=10) for future in (first, *others)} == {WriteResult.WRITTEN}
        assert writer.groups == [1, 9]
        recorder.stop()


def test_one_that_cannot_be_written_does_not_take_its_group_along(ledger: Engine) -> None:
    good, bad = claimed(ledger), claimed(ledger)
    broken = verdict()
    broken = broken.model_copy(update={"image": broken.image.model_copy(update={"width": 2**40})})
    held = HeldClaims()
    held.take(
        good, bad, *(claimed(ledger) for _ in range(7))
    )  # a busy worker, whose verdicts wait for others
    with dispatcher(ledger) as webhooks:
        writer = HeldWriter(ledger, webhooks)
        recorder = BatchRecorder(writer, held, ItemPace(16))
        futures = [recorder.put(good, verdict()), recorder.put(bad, broken)]
        writer.leave.set()
        assert futures[0].result(timeout=10) is WriteResult.WRITTEN
        assert futures[1].exception(timeout=10) is not None
        recorder.stop()
    assert (row(ledger, good.id)["state"], row(ledger, bad.id)["state"]) == ("done", "running")
    assert good not in held.held(), "its lease is renewed no more"
    assert bad in held.held()


# --- several rows, one message


def test_a_message_rings_several_rows_and_what_was_in_hand_at_a_death_by_itself(
    ledger: Engine, redis_url: str
) -> None:
    dead = claimed(ledger, lease_s=-1)
    expire(ledger, worker="sweeper", max_crashes=10)
    ids = [submitted(ledger) for _ in range(7)]
    due: list[Due] = []
    ring_due(ledger, due.extend, urgent=100, others=100)
    doorbell = Doorbell(redis_url)
    assert doorbell.ring(due, bundle=4) == (1, 2)
    assert sorted(doorbell.waiting()) == sorted([dead.id, *ids])
    assert doorbell.ring([replace(due[0], priority=0)], bundle=4) == (2, 2)
    doorbell.close()


def test_what_is_put_back_is_next_and_together(redis_url: str) -> None:
    doorbell = Doorbell(redis_url)
    first, second, third = (UUID(int=n) for n in range(3))
    doorbell.ring([Due(third, "https://images.test/3.jpg", "p@1", 1, 0)])
    doorbell.put_back([first, second])
    with redis.Redis.from_url(redis_url) as client:
        client.rpop("vetline.due")
    assert doorbell.waiting() == [third]
    doorbell.close()


def test_a_thread_takes_on_what_it_works_off_in_a_moment_and_rings_the_rest(
    ledger: Engine, redis_url: str
) -> None:
    ids = [submitted(ledger) for _ in range(16)]
    doorbell = Doorbell(redis_url)
    with processor(ledger, redis_url, lambda *_: verdict()) as at:
        assert in_words(at.work(*ids)) == "safe", "slow until it was measured"
        assert sorted(doorbell.waiting()) == ids[1:]
        for _ in range(200):
            at.item_pace.note(0.001)
        assert in_words(at.work(*ids[1:])) == " ".join(["safe"] * 15)
        assert doorbell.depths() == (0, 1), "nothing more was put back"
        assert violations(ledger) == []
        assert len(at.held_claims) == 0
    doorbell.close()


def test_the_slower_the_items_the_fewer_a_thread_takes_on() -> None:
    item_pace = ItemPace(16)
    assert item_pace.rows() == 1
    for seconds, rows in ((0.0, 16), (0.02, 4), (3.0, 1)):
        for _ in range(200):
            item_pace.note(seconds)
        assert item_pace.rows() == pytest.approx(rows, abs=1)


def test_a_verdict_that_the_ledger_cannot_take_is_a_failure_with_a_name(
    ledger: Engine, redis_url: str
) -> None:
    broken = verdict()
    broken = broken.model_copy(update={"image": broken.image.model_copy(update={"width": 2**40})})
    id_ = submitted(ledger)
    with processor(ledger, redis_url, lambda *_: broken) as at:
        assert at.work(id_) == [Outcome(OutcomeKind.LATER, "internal_error")]
    assert [a["outcome"] for a in attempts(ledger, id_)] == ["retried"]


# --- claims whose reply was lost


def test_a_claim_whose_reply_was_lost_is_given_back_by_the_next_beat_uncharged(
    ledger: Engine, far: Engine, proxy: Proxy, redis_url: str
) -> None:
    ids = [submitted(ledger) for _ in range(3)]
    with processor(far, redis_url, lambda *_: verdict()) as at:
        for _ in range(200):
            at.item_pace.note(0.001)
        far.connect().close()  # a connection there is to cut
        proxy.cut_after(down=0)
        assert at.work(*ids) == [Outcome(OutcomeKind.LEDGER_UNAVAILABLE)]
        wait_for(lambda: row(ledger, ids[0])["state"] == "running", what="the claim's commit")
        at.claimer.settle_doubts()
        for id_ in ids:
            freed = row(ledger, id_)
            assert (freed["state"], freed["charged"], freed["crashes"]) == ("queued", 0, 0)
            assert [a["outcome"] for a in attempts(ledger, id_)] == ["given_back"]
        assert at.work(*ids) == [Outcome(OutcomeKind.SAFE)] * 3
        at.claimer.settle_doubts()
        assert violations(ledger) == []


def test_no_doubt_takes_a_row_from_whoever_holds_it(
    ledger: Engine, far: Engine, proxy: Proxy, redis_url: str
) -> None:
    id_ = submitted(ledger)
    with processor(far, redis_url, lambda *_: verdict()) as at:
        proxy.cut_after(up=0)  # the claim never arrives
        assert at.work(id_) == [Outcome(OutcomeKind.LEDGER_UNAVAILABLE)]
        claimed(ledger, id_, worker="w2")
        at.claimer.settle_doubts()
        assert (row(ledger, id_)["worker"], row(ledger, id_)["state"]) == ("w2", "running")

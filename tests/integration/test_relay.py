"""What is rung next, and what is held up: priorities, shares, lanes, pauses and caps."""

from collections import Counter
from uuid import UUID

import pytest
from sqlalchemy import Engine

from moderation.assessment import Submission
from moderation.ledger.claim import claim
from moderation.ledger.outcomes import give_back
from moderation.ledger.pauses import Scope, cap, caps, pause, pauses, resume, uncap
from moderation.ledger.policies import pin
from moderation.ledger.relay import Due, ring_due
from moderation.ledger.submit import new_id, submit
from tests.support.ledger import HIGH, LOW, NORMAL, POLICY, record, row, submitted, verdict


def many(engine: Engine, count: int, **fields: object) -> list[UUID]:
    made = [Submission(uri="https://images.test/1.jpg", policy=POLICY, **fields) for _ in range(count)]  # type: ignore[arg-type]
    ids = [new_id() for _ in made]
    submit(engine, made, pin(engine, [POLICY]), ids)
    return ids


def rung(
    engine: Engine,
    *,
    others: int = 1000,
    urgent: int = 1000,
    low_share: float = 0.2,
    only_first: bool = False,
) -> list[Due]:
    seen: list[Due] = []
    ring_due(engine, seen.extend, urgent=urgent, others=others, low_share=low_share, only_first=only_first)
    return seen


def taken(engine: Engine, ids: list[UUID]) -> set[UUID]:
    return {item.id for item in claim(engine, ids, worker="w1", lease_s=60)}


def test_low_rows_have_their_share_while_normal_ones_wait_and_the_rest_where_none_do(ledger: Engine) -> None:
    many(ledger, 100, priority=NORMAL)
    many(ledger, 30, priority=LOW)
    assert Counter(due.priority for due in rung(ledger, others=50)) == {NORMAL: 40, LOW: 10}
    assert Counter(due.priority for due in rung(ledger, others=80)) == {NORMAL: 60, LOW: 20}


def test_the_smallest_room_is_lows_once_in_a_while(ledger: Engine) -> None:
    many(ledger, 200, priority=NORMAL)
    many(ledger, 200, priority=LOW)
    turns = Counter(due.priority for _ in range(60) for due in rung(ledger, others=1))
    assert turns.total() == 60
    assert turns[LOW] >= 1  # 1 in 650,000 for none


def test_a_full_queue_of_others_keeps_no_high_row_waiting(ledger: Engine) -> None:
    many(ledger, 3, priority=NORMAL)
    (urgent,) = many(ledger, 1, priority=HIGH)
    assert [due.id for due in rung(ledger, others=0)] == [urgent]


def test_batches_take_turns_however_long_the_first_is(ledger: Engine) -> None:
    many(ledger, 300, batch="overnight")
    small = many(ledger, 5, batch="small")
    first = rung(ledger, others=20)
    assert len(first) == 20
    assert set(small) <= {due.id for due in first}
    assert {due.id for due in first[:10]} & set(small) == set(small), "one of each in turn"


@pytest.mark.parametrize(
    ("scope", "name"),
    [(Scope.BATCH, "b"), (Scope.TENANT, "t"), (Scope.POLICY, POLICY), (Scope.EVERYTHING, "")],
)
def test_what_is_paused_is_neither_claimed_nor_rung_until_it_is_resumed(
    ledger: Engine, scope: Scope, name: str
) -> None:
    held = submitted(ledger, batch="b", tenant="t", rung=True), submitted(ledger, batch="b", tenant="t")
    other = submitted(ledger, policy="strict", batch="c", tenant="u")
    assert pause(ledger, scope, name, reason="a bad bucket", by="ann")
    assert not pause(ledger, scope, name), "once is enough"
    (standing,) = pauses(ledger)
    assert (standing.scope, standing.name, standing.reason, standing.paused_by) == (
        scope,
        name,
        "a bad bucket",
        "ann",
    )
    assert taken(ledger, list(held)) == set()
    assert {due.id for due in rung(ledger)} == (set() if scope is Scope.EVERYTHING else {other})
    assert resume(ledger, scope, name)
    assert held[1] in {due.id for due in rung(ledger)}
    assert taken(ledger, list(held)) == set(held)


def test_what_ran_when_the_pause_came_may_end(ledger: Engine) -> None:
    (item,) = claim(ledger, [submitted(ledger, batch="b")], worker="w1", lease_s=60)
    pause(ledger, Scope.BATCH, "b")
    record(ledger, item, verdict(), worker="w1")
    assert row(ledger, item.id)["state"] == "done"


def test_what_is_given_back_stays_where_it_is_while_paused(ledger: Engine) -> None:
    (item,) = claim(ledger, [submitted(ledger, batch="b")], worker="w1", lease_s=60)
    pause(ledger, Scope.BATCH, "b")
    give_back(ledger, item, worker="w1")
    assert rung(ledger, only_first=True) == []
    resume(ledger, Scope.BATCH, "b")
    assert [due.id for due in rung(ledger, only_first=True)] == [item.id]


def test_no_more_of_a_capped_batch_is_under_way_than_the_cap(ledger: Engine) -> None:
    ids = many(ledger, 10, batch="b")
    others = many(ledger, 10)
    cap(ledger, Scope.BATCH, "b", 3, by="ann")
    first = {due.id for due in rung(ledger)}
    assert len(first & set(ids)) == 3
    assert set(others) <= first
    (held,) = claim(ledger, [next(iter(first & set(ids)))], worker="w1", lease_s=60)
    assert rung(ledger) == [], "what runs counts as well"
    record(ledger, held, verdict(), worker="w1")
    assert len(rung(ledger)) == 1, "one ended, so one more"
    assert [(c.name, c.in_hand) for c in caps(ledger)] == [("b", 3)]
    assert uncap(ledger, Scope.BATCH, "b")
    assert len(rung(ledger)) == 6


def test_the_batches_of_a_capped_tenant_share_its_cap(ledger: Engine) -> None:
    for name in ("a", "b", "c"):
        many(ledger, 5, batch=name, tenant="t")
    cap(ledger, Scope.TENANT, "t", 4)
    cap(ledger, Scope.BATCH, "a", 1)
    seen = rung(ledger)
    assert len(seen) <= 4
    while more := rung(ledger):
        seen += more
    assert len(seen) == 4
    assert sum(row(ledger, due.id)["batch"] == "a" for due in seen) <= 1


def test_the_caps_hold_across_priorities_within_one_pass(ledger: Engine) -> None:
    for priority in (HIGH, NORMAL, LOW):
        many(ledger, 5, batch="b", priority=priority)
    cap(ledger, Scope.BATCH, "b", 6)
    assert len(rung(ledger)) == 6
    assert rung(ledger) == []


def test_a_producer_rings_nothing_that_is_held_up(ledger: Engine) -> None:
    pause(ledger, Scope.BATCH, "paused")
    cap(ledger, Scope.TENANT, "capped", 1)
    made = [
        Submission(uri="https://images.test/1.jpg", policy=POLICY, batch="paused"),
        Submission(uri="https://images.test/2.jpg", policy=POLICY, tenant="capped"),
        Submission(uri="https://images.test/3.jpg", policy=POLICY),
    ]
    tickets = submit(ledger, made, pin(ledger, [POLICY]), [new_id() for _ in made], rung=True)
    assert [ticket.rung for ticket in tickets] == [False, False, True]
    assert [due.id for due in rung(ledger)] == [tickets[1].id]

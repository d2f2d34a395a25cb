"""The ledger against a model of it, driven by hypothesis: any order of submissions, claims, deaths and late writers.

Workers keep every claim they ever got and write with all of them, so most writers are stale. Time is moved by
statements of the test: a lease, a delay or a ring is put into the past rather than waited for.
"""

from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import Engine, text

from moderation.assessment import TERMINAL, Submission
from moderation.errors import HostUnavailable, NotFound, RuntimeUnavailable
from moderation.ledger.claim import beat, claim
from moderation.ledger.outcomes import WriteResult, fail, give_back, try_later
from moderation.ledger.pauses import Scope, cap, pause, resume, uncap
from moderation.ledger.policies import PinnedPolicy, pin
from moderation.ledger.relay import Due, ring_due
from moderation.ledger.retry import cancel_queued, retry_failed
from moderation.ledger.selection import Selection
from moderation.ledger.submit import new_id, submit
from moderation.ledger.sweep import expire, find_lost
from tests.support.ledger import POLICY, record, verdict
from tests.support.ledger_model import Held, Item, Target
from tests.support.ledger_moves import STATE_AFTER, WORKERS, Move, moves, submissions

MAX_CRASHES = 2
LATER_S = 60.0  # so far ahead that no example lives to see it

_ROWS = text("""
    SELECT a.*,
        coalesce((SELECT jsonb_agg(t ORDER BY t.attempt) FROM attempt t WHERE t.assessment_id = a.id), '[]') AS attempts,
        array(SELECT v.attempt FROM verdict v WHERE v.assessment_id = a.id) AS verdicts
    FROM assessment a WHERE a.id = ANY(:ids)
""")


class LedgerMachine(RuleBasedStateMachine):
    """Each example has rows of its own in a ledger that all share; at the end it leaves none of them open.

    Items and claims are picked by number, counted round. What does not apply is tried all the same.
    """

    ledger: Engine

    def __init__(self) -> None:
        super().__init__()
        self.pinned: dict[str, PinnedPolicy] = pin(self.ledger, [POLICY, "strict"])
        self.items: dict[UUID, Item] = {}
        self.held: list[Held] = []  # newest first
        self.salt = uuid4().hex  # keys, batches and tenants of this example meet no other's
        self.paused: set[Target] = set()
        self.caps_set: dict[Target, int] = {}
        self.fences: set[tuple[UUID, int]] = set()
        self.seen: dict[UUID, dict[str, Any]] = {}  # the rows as the last invariant found them
        self.retried: set[UUID] = set()

    def teardown(self) -> None:
        self._run(
            "UPDATE assessment SET state = 'cancelled', lease_until = NULL, ring_at = NULL, rung_at = NULL",
            self.items,
        )
        with self.ledger.connect() as connection:
            connection.execute(text("DELETE FROM pause"))
            connection.execute(text("DELETE FROM cap"))

    @initialize(first=submissions, second=submissions)
    def begins(self, first: Submission, second: Submission) -> None:
        self.submits(first, due=True)
        self.submits(second, due=True)
        self.claims(None, WORKERS[0])

    @rule(what=moves)
    def then(self, what: Move) -> None:
        getattr(self, what.name)(**what.given)

    # Producers.

    def submits(self, submission: Submission, due: bool) -> None:
        named = {name: self._salted(getattr(submission, name)) for name in ("key", "batch", "tenant")}
        mine, key = submission.model_copy(update=named), named["key"]
        standing = [id_ for id_, item in self.items.items() if key and _same_key(item.submission, mine)]
        id_ = new_id()
        (ticket,) = self._submit(mine, id_, due)
        if standing:
            assert (ticket.id, ticket.known) == (standing[0], True)
        else:
            assert (ticket.id, ticket.known) == (id_, False)
            item = Item(mine, due=due)
            item.due = due or self._is_held_up(item)
            assert ticket.rung == (not item.due), "what is paused or capped waits for the relay"
            self.items[id_] = item

    def submits_again_after_a_lost_reply(self, which: int, due: bool) -> None:
        id_, item = self._item(which)
        (ticket,) = self._submit(item.submission, id_, due)
        assert (ticket.id, ticket.known) == (id_, False)

    def cancels(self, which: int) -> None:
        id_, item = self._item(which)
        cancelled = cancel_queued(self.ledger, Selection(ids=(id_,)))
        assert cancelled == ([id_] if item.state == "queued" else [])
        if cancelled:
            item.state = "cancelled"

    def retries(self, which: int | None) -> None:
        ids = tuple(self.items) if which is None else (self._item(which)[0],)
        failed = {id_ for id_ in ids if self.items[id_].state == "failed"}
        assert set(retry_failed(self.ledger, Selection(ids=ids))) == failed
        self.retried = failed
        for item in (self.items[id_] for id_ in failed):
            item.state, item.charged, item.crashes = "queued", 0, 0
            item.queue(delayed=False)

    # Workers.

    def claims(self, which: int | None, worker: str) -> None:
        wanted = list(self.items) if which is None else [self._item(which)[0]]
        taken = claim(self.ledger, wanted, worker=worker, lease_s=LATER_S)
        assert {c.id for c in taken} == {id_ for id_ in wanted if self._is_claimable(self.items[id_])}
        for got in sorted(taken, key=lambda c: wanted.index(c.id)):
            assert (got.id, got.attempt) not in self.fences, "no fence is handed out twice"
            self.fences.add((got.id, got.attempt))
            self.held.insert(0, Held(got, worker))
            item = self.items[got.id]
            item.state, item.worker, item.lease_over = "running", worker, False
            item.attempt += 1
            item.charged += 1
            assert (got.attempt, got.charged, got.crashes) == (item.attempt, item.charged, item.crashes)

    def beats(self, first: int, count: int) -> None:
        held = self.held[first : first + count]
        lost = beat(self.ledger, [h.claim for h in held], lease_s=LATER_S)
        live = {h.claim.id for h in held if self._is_live(h)}
        assert lost == {h.claim.id for h in held} - live
        for id_ in live:
            self.items[id_].lease_over = False

    def ends(self, which: int, verb: str, delayed: bool) -> None:
        """Somebody who once held a claim writes at its fence; whether or not it is still theirs."""
        held = self.held[which % len(self.held)]
        live, item = self._is_live(held), self.items[held.claim.id]
        ending = self._write(held, verb, LATER_S if delayed else 0.0)
        if live:
            assert ending is WriteResult.WRITTEN
            item.end(verb, STATE_AFTER[verb], held.worker)
            item.queue(delayed=delayed)
            return
        own = item.outcomes.get(held.claim.attempt) == (verb, held.worker)
        assert ending is (WriteResult.REPEATED if own else WriteResult.LOST)
        assert self._rows() == self.seen, "a stale writer changes nothing"

    def a_namesake_ends(self, which: int, verb: str) -> None:
        """Another worker asks what became of an ended attempt, which was not its own."""
        held = self.held[which % len(self.held)]
        if not self._is_live(held):
            other = Held(held.claim, "somebody-else")
            assert self._write(other, verb, 0.0) is WriteResult.LOST
            assert self._rows() == self.seen

    # Time, death and the sweeper.

    def a_lease_runs_out(self, which: int) -> None:
        running = [id_ for id_, item in self.items.items() if item.state == "running"]
        self._leases_end([running[which % len(running)]] if running else [])

    def a_worker_dies(self, which: int, swept: bool) -> None:
        """It renews nothing more. Its claims stay in `held`: it may only have stood still."""
        worker = self.held[which % len(self.held)].worker
        self._leases_end(
            [id_ for id_, item in self.items.items() if item.state == "running" and item.worker == worker]
        )
        if swept:
            self.sweeps(worker)

    def its_time_comes(self, which: int) -> None:
        id_, item = self._item(which)
        if item.state == "queued":
            item.queue(delayed=False)
        self._run(
            "UPDATE assessment SET not_before = NULL, rung_at = NULL, ring_at = now() - interval '1 s'",
            [id_],
            "state = 'queued'",
        )

    def sweeps(self, worker: str) -> None:
        freed = expire(self.ledger, worker=worker, max_crashes=MAX_CRASHES)
        over = {id_ for id_, item in self.items.items() if item.state == "running" and item.lease_over}
        assert freed is not None
        assert set(freed) == over
        for item in (self.items[id_] for id_ in over):
            item.crashes += 1
            item.end("crashed", "failed" if item.crashes >= MAX_CRASHES else "queued", item.worker)
            item.queue(delayed=False)

    def rings(self, limit: int, early: bool, redis_is_away: bool) -> None:
        if early:
            self._rings_are_lost()
        due = [i for i in self.items.values() if self._is_claimable(i) and i.due]
        rung: list[Due] = []

        def ring(calls: Any) -> None:
            if redis_is_away:
                raise ConnectionError
            rung.extend(calls)

        try:
            ring_due(self.ledger, ring, urgent=limit, others=limit, low_share=0)
        except ConnectionError:
            assert due
            return
        for call in rung:
            item = self.items[call.id]
            assert self._is_claimable(item)
            assert item.due
            item.due = False
        self._are_the_most_urgent(rung, due, 0 if redis_is_away else limit)
        for target in set().union(*(self.items[call.id].targets for call in rung)) & self.caps_set.keys():
            assert self._under_way(target) <= self.caps_set[target]

    def _are_the_most_urgent(self, rung: list[Due], due: list[Item], limit: int) -> None:
        if any(item.targets & self.caps_set.keys() for item in due):
            return  # which of them a cap lets through is the relay's to choose
        high, others = (
            [i for i in due if i.submission.priority == 0],
            [i for i in due if i.submission.priority > 0],
        )
        urgent = sorted(int(i.submission.priority) for i in others)[:limit]
        assert [call.priority for call in rung] == [0] * min(limit, len(high)) + urgent

    # Operators.

    def pauses(self, target: Target) -> None:
        target = self._own(target)
        assert pause(self.ledger, *target) == (target not in self.paused)
        self.paused.add(target)

    def resumes(self, which: int) -> None:
        if self.paused:
            target = sorted(self.paused)[which % len(self.paused)]
            assert resume(self.ledger, *target)
            assert not resume(self.ledger, *target)
            self.paused.remove(target)

    def caps(self, target: Target, in_hand: int | None) -> None:
        target = self._own(target)
        if in_hand is None:
            assert uncap(self.ledger, *target) == (self.caps_set.pop(target, None) is not None)
        else:
            cap(self.ledger, *target, in_hand)
            self.caps_set[target] = in_hand

    # What must hold after each of these.

    @invariant()
    def every_promise_holds(self) -> None:
        rows = self._rows()
        assert set(rows) == set(self.items), "accepted = open + terminal"
        for id_, row in rows.items():
            self._is_as_the_model_says(self.items[id_], row)
            self._is_whole(row)
            if (before := self.seen.get(id_)) is not None:
                self._has_moved_rightly(id_, before, row)
        self.seen = rows
        self.retried = set()

    def _is_as_the_model_says(self, item: Item, row: dict[str, Any]) -> None:
        found = row["state"], row["attempt"], row["charged"], row["crashes"]
        assert found == (item.state, item.attempt, item.charged, item.crashes)
        assert {a["attempt"]: (a["outcome"], a["worker"]) for a in row["attempts"]} == item.outcomes

    def _is_whole(self, row: dict[str, Any]) -> None:
        done = [a["attempt"] for a in row["attempts"] if a["outcome"] == "done"]
        assert len(row["verdicts"]) == (row["state"] == "done"), "a verdict where done, and nowhere else"
        assert done == row["verdicts"]
        ended = row["attempt"] - (row["state"] == "running")
        assert [a["attempt"] for a in row["attempts"]] == list(range(1, ended + 1)), (
            "all but the live one ended"
        )

    def _has_moved_rightly(self, id_: UUID, before: dict[str, Any], row: dict[str, Any]) -> None:
        assert row["attempt"] >= before["attempt"], "attempts only grow"
        assert row["attempts"][: len(before["attempts"])] == before["attempts"], "history stays"
        if before["state"] in TERMINAL and row["state"] != before["state"]:
            assert (before["state"], row["state"]) == ("failed", "queued")
            assert id_ in self.retried, "only a retry reopens"

    # The rest is how.

    def _item(self, which: int) -> tuple[UUID, Item]:
        return list(self.items.items())[which % len(self.items)]

    def _leases_end(self, ids: list[UUID]) -> None:
        self._run("UPDATE assessment SET lease_until = now() - interval '1 s'", ids)
        for id_ in ids:
            self.items[id_].lease_over = True

    def _salted(self, name: str | None) -> str | None:
        return name and f"{self.salt}-{name}"

    def _own(self, target: Target) -> Target:
        scope, name = target
        return (scope, f"{self.salt}-{name}") if scope in {Scope.BATCH, Scope.TENANT} else target

    def _is_claimable(self, item: Item) -> bool:
        return item.open and not item.targets & self.paused

    def _is_held_up(self, item: Item) -> bool:
        return bool(item.targets & (self.paused | self.caps_set.keys()))

    def _under_way(self, target: Target) -> int:
        """Rung or running; rows that wait for their time were never rung."""
        mine = [item for item in self.items.values() if target in item.targets]
        return sum(item.state == "running" or (item.open and not item.due) for item in mine)

    def _is_live(self, held: Held) -> bool:
        item = self.items[held.claim.id]
        return item.state == "running" and item.attempt == held.claim.attempt

    def _write(self, held: Held, verb: str, delay_s: float) -> WriteResult:
        ledger, taken, worker = self.ledger, held.claim, held.worker
        if verb == "done":
            return record(ledger, taken, verdict(), worker=worker)
        if verb == "failed":
            return fail(ledger, taken, NotFound("404"), worker=worker, timings_ms={})
        if verb == "retried":
            error = HostUnavailable("503")
            return try_later(ledger, taken, error, worker=worker, delay_s=delay_s, timings_ms={})
        return give_back(ledger, taken, worker=worker, error=RuntimeUnavailable("away"), delay_s=delay_s)

    def _rings_are_lost(self) -> None:
        """Redis was flushed: whatever was rung and is not claimed becomes due."""
        rung = {id_ for id_, item in self.items.items() if item.open and not item.due}
        assert set(find_lost(self.ledger, [], after_s=-1)) == rung
        for id_ in rung:
            self.items[id_].due = True

    def _submit(self, submission: Submission, id_: UUID, due: bool) -> Any:
        return submit(self.ledger, [submission], self.pinned, [id_], rung=not due)

    def _run(self, change: str, ids: Any, where: str = "true") -> None:
        with self.ledger.connect() as connection:
            connection.execute(text(f"{change} WHERE id = ANY(:ids) AND {where}"), {"ids": list(ids)})

    def _rows(self) -> dict[UUID, dict[str, Any]]:
        """Each of this example's rows, with its attempts, first to last, and its verdicts' attempts."""
        with self.ledger.connect() as connection:
            found = connection.execute(_ROWS, {"ids": list(self.items)}).mappings()
            return {row["id"]: dict(row) for row in found}


def _same_key(one: Submission, other: Submission) -> bool:
    return (one.policy, one.key) == (other.policy, other.key)


@pytest.mark.timeout(600)  # for when it fails: hypothesis then looks for the shortest way to that
def test_the_ledger_keeps_its_promises_in_whatever_order_things_happen(ledger: Engine) -> None:
    class Machine(LedgerMachine):
        pass

    Machine.ledger = ledger

    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=60,
            stateful_step_count=60,
            deadline=None,
            database=None,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )

"""The desk: where a claim comes in and its outcome goes out. The only place where the worker meets the ledger."""

import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import nullcontext
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TypeVar
from uuid import UUID

import structlog
from sqlalchemy import Engine
from structlog.contextvars import bound_contextvars

from moderation import faults, metrics, tracing
from moderation.assessment import Claim, Submission
from moderation.errors import (
    BrokerUnavailable,
    Defect,
    LedgerUnavailable,
    RuntimeCrashed,
    Transient,
    Unavailable,
    VetlineError,
)
from moderation.ledger.claim import claim, defer_suspects
from moderation.ledger.ending import Ending, fail, give_back, give_back_crashed, release_doubtful, try_later
from moderation.ledger.policies import load_revision, pin
from moderation.ledger.recording import Judged, record_all
from moderation.ledger.submit import new_id, submit
from moderation.policy import PolicyRevision
from moderation.redaction import redact_text
from moderation.settings import LeaseSettings
from moderation.verdict import Verdict
from worker.assess import Subject
from worker.clock import Clock
from worker.counting import count_failure, count_verdict
from worker.dock import Dock
from worker.gate import Gate
from worker.hand import Hand
from worker.recorder import Recorder
from worker.tempo import Tempo

log = structlog.get_logger()

_WRITE_AGAIN_S = 0.5
_GIVEN_BACK_DELAY_S = 2.0  # long enough not to come straight back to the worker whose runtime is down

_CLAIM_SECONDS = metrics.STEP_SECONDS.labels("claim")  # no item's clock runs yet
_DOCK_WAIT_S = 3.0  # a trial takes a fraction of that once its process runs

Assess = Callable[[Claim, Subject, PolicyRevision, Clock], Verdict]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Ending:
    """How an item ends: its outcome in a word, and what becomes of the write."""

    item: Claim
    outcome: str
    clock: Clock
    written: Future[Ending]
    verdict: Verdict | None  # None where it ends without one


class Desk:
    """Claims rows, has them assessed, and writes what came of it, under the fence.

    assess: the path of one image; raises our own errors.
    put_back: rings rows again that came in one message and are too many for one thread.
    bundle: the most rows that a thread takes on at once.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        worker: str,
        lease: LeaseSettings,
        gate: Gate,
        assess: Assess,
        put_back: Callable[[Sequence[UUID]], None] = lambda _: None,
        bundle: int = 1,
    ) -> None:
        self._engine = engine
        self._worker = worker
        self._lease = lease
        self._gate = gate
        self._assess = assess
        self._put_back = put_back
        self._closing = threading.Event()
        self._doubtful: set[UUID] = set()  # rows whose claim may stand, though its reply was lost
        self._doubt = threading.Lock()
        self.hand = Hand()
        self.tempo = Tempo(bundle)
        self._recorder = Recorder(self._record, in_hand=self.hand.__len__)
        self._dock = Dock()
        self.on_recorded: Callable[[], object] = lambda: None  # called once verdicts are committed
        self.taken_at = time.monotonic()  # when a message last came in; the watch on progress reads it
        self._policy = lru_cache(maxsize=512)(lambda revision_id: load_revision(engine, revision_id))

    def admit(self, uri: str, policy: str, key: str) -> UUID:
        """The row for a message that brought its own URI and policy: made once for each key.

        Such a message is the only record there is, so it waits here for a ledger that is away.
        Raises Misuse for a policy or URI that cannot be accepted.
        """
        submission = Submission(uri=uri, policy=policy, key=key)
        while True:
            try:
                pinned = pin(self._engine, [policy])
                tickets = submit(self._engine, [submission], pinned, [new_id()], rung=True)
                metrics.count_tickets(tickets)
                return tickets[0].id
            except LedgerUnavailable as exc:
                self._gate.shut(exc)
                if self._closing.wait(_WRITE_AGAIN_S):
                    raise

    def work(self, *ids: UUID) -> str:
        """Claim these rows and their siblings, if due; assess and end each. Says in a word each what came of them:

        safe, unsafe, failed:CODE, later:CODE (tried again), back:CODE (given back), lease_lost; or why none was claimed.
        """
        self.taken_at = time.monotonic()
        faults.at("after_pop")
        if self._closing.is_set():
            return "closing"
        ids = self._mine_of(ids)
        with self._dock.entered() as alone:
            try:
                start = time.perf_counter()
                claims = self._claim(ids, suspects=alone)
                claim_s = time.perf_counter() - start
            except LedgerUnavailable as exc:
                self._gate.shut(exc)  # the rows stay due; the sweeper rings them again
                return "ledger_unavailable"
            if not claims:
                metrics.NOT_DUE.inc()
                return "not_due"
            metrics.CLAIMED.inc(len(claims))
            _CLAIM_SECONDS.observe(claim_s)
            if not any(self._is_suspect(item) for item in claims):
                self._dock.leave()
            self.hand.take(*claims)
            try:
                return self._hold_all(claims, claim_s)
            finally:
                self.hand.drop(*claims)

    def close(self) -> None:
        """Take nothing more. What is in hand may finish."""
        self._closing.set()

    def give_back_all(self) -> int:
        """Give back what is still in hand, uncharged, and say how much that was."""
        held = self.hand.held()
        for item in held:
            try:
                give_back(self._engine, item, worker=self._worker)
            except LedgerUnavailable as exc:  # the lease runs out by itself
                log.warning("give_back_failed", assessment=str(item.id), error=str(exc))
        return len(held)

    def stop(self) -> None:
        """After the last item."""
        self._recorder.stop()

    def settle_doubts(self) -> None:
        """Give back what runs under our name and never reached us. Raises LedgerUnavailable."""
        with self._doubt:
            doubtful = self._doubtful - {item.id for item in self.hand.held()}
        if not doubtful:
            return
        released = release_doubtful(self._engine, list(doubtful), worker=self._worker)
        with self._doubt:
            self._doubtful -= doubtful
        if released:
            log.warning("lost_claims_released", count=len(released), first=str(released[0]))

    def _mine_of(self, ids: tuple[UUID, ...]) -> tuple[UUID, ...]:
        """As many of a message's rows as this thread works off in a moment; the others ring for other threads."""
        count = self.tempo.rows()
        if ids[count:]:
            try:
                self._put_back(ids[count:])
            except BrokerUnavailable as exc:  # their ring is lost, and the sweeper finds it out
                log.warning("put_back_failed", count=len(ids) - count, error=str(exc))
        return ids[:count]

    def _claim(self, ids: Sequence[UUID], *, suspects: bool) -> list[Claim]:
        """The claims of these rows and their siblings; a suspect's only where no other is in hand.

        Suspects wait outside: in hand, they would go down with the worker again and again, and keep others out.
        """
        suspect = self._lease.suspect_crashes
        take = partial(claim, self._engine, ids, worker=self._worker, lease_s=self._lease.lease_s)
        if suspects:
            return self._surely(ids, take)
        claims = self._surely(ids, partial(take, suspect=suspect))
        got = {item.id for item in claims}
        left = [id_ for id_ in ids if id_ not in got]
        if not left or not defer_suspects(self._engine, left, suspect=suspect, delay_s=_DOCK_WAIT_S):
            return claims
        return claims or (self._surely(ids, take) if self._dock.enter(_DOCK_WAIT_S) else [])

    def _surely(self, ids: Sequence[UUID], take: Callable[[], list[Claim]]) -> list[Claim]:
        """Claim, and remember for the next beat what may be ours without our knowing."""
        with self._doubt:
            doubted = self._doubtful.intersection(ids)
            self._doubtful -= doubted
        got: list[Claim] | None = None
        try:
            got = take()
            return got
        finally:
            unsure = set(ids) if got is None else doubted - {item.id for item in got}
            if unsure:
                with self._doubt:
                    self._doubtful |= unsure

    def _is_suspect(self, item: Claim) -> bool:
        return item.crashes >= self._lease.suspect_crashes

    def _hold_all(self, claims: list[Claim], claim_s: float) -> str:
        """Each under its own policy, by itself; the image is fetched and decoded once for all of them.

        One after the other: SGLang has the image's prefix in its cache once the first is answered. Suspects of
        having killed workers come last. What is judged is written while the next is looked at.
        """
        subjects = {item.uri: Subject(item.uri) for item in claims}
        endings = []
        for item in sorted(claims, key=lambda claim: (claim.crashes, claim.id)):
            with (
                tracing.attempt(item.id, attempt=item.attempt, worker=self._worker),
                # Every line that is logged on the way, by whatever library, says which item it is about.
                bound_contextvars(assessment=str(item.id), attempt=item.attempt),
            ):
                tracing.claimed(claim_s)
                ending = self._hold(item, subjects[item.uri])
                ending.written.add_done_callback(partial(self._let_go, item))
                if len(claims) == 1:
                    return self._told(ending)
            endings.append(ending)
        return " ".join(self._told(ending) for ending in endings)

    def _hold(self, item: Claim, subject: Subject) -> _Ending:
        faults.at("after_claim", item.uri)
        clock = Clock()
        started = time.monotonic()
        verdict: Verdict | None = None
        try:
            verdict = self._assess(item, subject, self._policy(item.policy_revision_id), clock)
            faults.at("before_record", item.uri)
            outcome, written = verdict.judgement.rating.value.lower(), self._recorder.put(item, verdict)
        except VetlineError as error:
            verdict = None
            outcome, written = self._end_badly(item, error, clock)
        except Exception as exc:  # ours to mend, but the item must still end somewhere that can be listed
            log.exception("assess_failed", assessment=str(item.id))
            verdict = None
            outcome, written = self._end_defect(item, exc, clock)
        self.tempo.note(time.monotonic() - started)
        return _Ending(item, outcome, clock, written, verdict)

    def _let_go(self, item: Claim, written: Future[Ending]) -> None:
        """In the thread that wrote it, so that no beat finds it gone."""
        if written.exception() is None:
            self.hand.drop(item)
            faults.at("after_record", item.uri)

    def _told(self, ended: _Ending) -> str:
        """Its outcome, once it is written."""
        item, outcome = ended.item, ended.outcome
        try:
            with ended.clock.step("record") if ended.verdict else nullcontext():
                ending = ended.written.result()
        except Exception as exc:  # as in _hold: a verdict that the ledger cannot take
            log.exception("record_failed", assessment=str(item.id))
            outcome, written = self._end_defect(item, exc, ended.clock)
            ending = written.result()
        else:
            if ended.verdict is not None:
                count_verdict(self._policy(item.policy_revision_id).policy, ended.verdict, ending)
        took_ms = {f"{step}_ms": ms for step, ms in ended.clock.timings_ms.items()}
        told = log.bind(assessment=str(item.id), attempt=item.attempt, outcome=outcome, **took_ms)
        if ending is Ending.LOST:
            told.warning("lease_lost_at_the_fence")
            return "lease_lost"
        told.info("assessed")
        return outcome

    def _end_defect(self, item: Claim, exc: Exception, clock: Clock) -> tuple[str, Future[Ending]]:
        defect = Defect(f"{type(exc).__name__}: {redact_text(str(exc))}")
        return self._end_badly(item, defect, clock)

    def _record(self, judged: Sequence[Judged]) -> list[Ending]:
        endings = self._write(lambda: record_all(self._engine, judged, worker=self._worker))
        self.on_recorded()
        return endings

    def _end_badly(self, item: Claim, error: VetlineError, clock: Clock) -> tuple[str, Future[Ending]]:
        is_final = not isinstance(error, Unavailable) and not self._may_try_again(item, error)
        word = "failed" if is_final else "back" if isinstance(error, Unavailable) else "later"
        with clock.step("record"):
            ending = self._write_failure(item, error, dict(clock.timings_ms))
        count_failure(error, ending, is_final=is_final)
        tracing.failed(error.code)
        return f"{word}:{error.code}", _known(ending)

    def _may_try_again(self, item: Claim, error: VetlineError) -> bool:
        return isinstance(error, Transient) and item.charged < self._lease.max_attempts

    def _write_failure(self, item: Claim, error: VetlineError, timings_ms: dict[str, float]) -> Ending:
        """Give back, put off or fail, as the error's class says."""
        if isinstance(error, Unavailable):
            self._gate.shut(error)
            return self._write(lambda: self._give_back(item, error))
        if isinstance(error, Transient) and self._may_try_again(item, error):
            delay_s = self._delay_s(item, error)
            return self._write(
                lambda: try_later(
                    self._engine, item, error, worker=self._worker, delay_s=delay_s, timings_ms=timings_ms
                )
            )
        return self._write(
            lambda: fail(self._engine, item, error, worker=self._worker, timings_ms=timings_ms)
        )

    def _give_back(self, item: Claim, error: Unavailable) -> Ending:
        if isinstance(error, RuntimeCrashed):
            return give_back_crashed(
                self._engine, item, error, worker=self._worker, delay_s=_GIVEN_BACK_DELAY_S
            )
        return give_back(self._engine, item, worker=self._worker, error=error, delay_s=_GIVEN_BACK_DELAY_S)

    def _delay_s(self, item: Claim, error: Transient) -> float:
        """Full jitter under a doubling bound, and never sooner than the other side asked for.

        The same for siblings, so that they come back together.
        """
        bound_s = min(self._lease.retry_cap_s, self._lease.retry_base_s * 2 ** (item.charged - 1))
        jitter = random.Random(f"{item.submission_id or item.id} {item.charged}")  # noqa: S311 - no secret
        return max(0.1, jitter.uniform(0, bound_s), error.retry_after_s or 0.0)

    def _write(self, write: Callable[[], T]) -> T:
        """Write until Postgres took it: an answer that cost a model call is not thrown away for a restart."""
        while True:
            try:
                return write()
            except LedgerUnavailable as exc:
                self._gate.shut(exc)
                log.warning("write_waits_for_ledger", error=str(exc))
                time.sleep(_WRITE_AGAIN_S)


def _known(ending: Ending) -> Future[Ending]:
    future: Future[Ending] = Future()
    future.set_result(ending)
    return future

"""The processor: claims come in and outcomes go out. The only place where the worker writes them to the ledger."""

import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, nullcontext
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
from moderation.ledger.outcomes import WriteResult, fail, give_back, give_back_crashed, try_later
from moderation.ledger.policies import load_revision, pin
from moderation.ledger.record import Judged, record_all
from moderation.ledger.submit import new_id, submit
from moderation.policy import PolicyRevision
from moderation.redaction import redact_text
from moderation.settings import LeaseSettings
from moderation.verdict import Verdict
from worker.events import task_progress
from worker.health.intake_gate import IntakeGate
from worker.processing.assess import LazyImage
from worker.processing.batch_recorder import BatchRecorder
from worker.processing.claimer import Claimer
from worker.processing.fan_out import FanOut, in_parts
from worker.processing.held_claims import HeldClaims
from worker.processing.item_pace import ItemPace
from worker.processing.outcome_metrics import count_failure, count_verdict
from worker.processing.step_timer import StepTimer
from worker.processing.suspect_slot import SuspectSlot

log = structlog.get_logger()

_WRITE_AGAIN_S = 0.5
_GIVEN_BACK_DELAY_S = 2.0  # long enough not to come straight back to the worker whose runtime is down

_CLAIM_SECONDS = metrics.STEP_SECONDS.labels("claim")  # no item's clock runs yet

Assess = Callable[[Claim, LazyImage, PolicyRevision, StepTimer], Verdict]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _ItemEnd:
    """How an item ends: its outcome in a word, what becomes of the write, and when that began."""

    item: Claim
    outcome: str
    timer: StepTimer
    written: Future[WriteResult]
    verdict: Verdict | None  # None where it ends without one
    put_at: float  # of time.perf_counter


class Processor:
    """Claims rows, has them assessed, and writes what came of it, under the fence.

    assess: the path of one image; raises our own errors.
    put_back: rings rows again that came in one message and are too many for this worker.
    bundle: the most rows that a message rings.
    sharing: threads for the rows of a message that are too many for its own thread.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        worker: str,
        lease: LeaseSettings,
        intake_gate: IntakeGate,
        assess: Assess,
        put_back: Callable[[Sequence[UUID]], None] = lambda _: None,
        bundle: int = 1,
        fan_out: FanOut | None = None,
    ) -> None:
        self._engine = engine
        self._worker = worker
        self._lease = lease
        self._intake_gate = intake_gate
        self._assess = assess
        self._put_back = put_back
        self._closing = threading.Event()
        self._bundle = bundle
        self._fan_out = fan_out
        self.held_claims = HeldClaims()
        self.item_pace = ItemPace(bundle)
        self._recorder = BatchRecorder(
            self._record, in_hand=self.held_claims.__len__, linger_s=self.item_pace.linger_s
        )
        self._suspect_slot = SuspectSlot()
        self._claimer = Claimer(
            engine, worker=worker, lease=lease, suspect_slot=self._suspect_slot, held_claims=self.held_claims
        )
        self.settle_doubts = self._claimer.settle_doubts
        # Called once verdicts are committed; and once the rows that came in a message beside its first are shared out.
        self.on_recorded: Callable[[], object] = lambda: None
        self.on_taken: Callable[[UUID], object] = lambda _: None
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
                self._intake_gate.shut(exc)
                if self._closing.wait(_WRITE_AGAIN_S):
                    raise

    def work(self, *ids: UUID) -> str:
        """Claim these rows and their siblings, if due; assess and end each. Says in a word each what came of them:

        safe, unsafe, failed:CODE, later:CODE (tried again), back:CODE (given back), lease_lost; or why none was claimed.
        Where the judge is slow, all but the first are shared out, and go on after this returns.
        """
        self.taken_at = time.monotonic()
        faults.at("after_pop")
        if self._closing.is_set():
            return "closing"
        ids = self._mine_of(ids)
        with self._suspect_slot.entered() as alone:
            try:
                start = time.perf_counter()
                claims = self._claimer.claim(ids, suspects=alone)
                claim_s = time.perf_counter() - start
            except LedgerUnavailable as exc:
                self._intake_gate.shut(exc)  # the rows stay due; the sweeper rings them again
                return "ledger_unavailable"
            if not claims:
                metrics.NOT_DUE.inc()
                return "not_due"
            metrics.CLAIMED.inc(len(claims))
            _CLAIM_SECONDS.observe(claim_s)
            suspects = any(self._claimer.is_suspect(item) for item in claims)
            if not suspects:
                self._suspect_slot.leave()
            self.held_claims.take(*claims)
            as_one = suspects or self._fan_out is None
            mine, *others = [claims] if as_one else in_parts(claims, ids, size=self.item_pace.rows())
            self._share_out(others, claim_s)
            self.on_taken(ids[0])
            try:
                return " ".join(outcome for _, outcome in self._hold_all(mine, claim_s))
            finally:
                self.held_claims.drop(*mine)

    def close(self) -> None:
        """Take nothing more. What is in hand may finish."""
        self._closing.set()

    def give_back_all(self) -> int:
        """Give back what is still in hand, uncharged, and say how much that was."""
        held = self.held_claims.held()
        for item in held:
            try:
                give_back(self._engine, item, worker=self._worker)
            except LedgerUnavailable as exc:  # the lease runs out by itself
                log.warning("give_back_failed", assessment=str(item.id), error=str(exc))
        return len(held)

    def stop(self) -> None:
        """After the last item."""
        self._recorder.stop()

    def at_once(self) -> int:
        """How many rows of one message this worker takes on."""
        shared = self._fan_out.most if self._fan_out else 0
        return min(self._bundle, max(self.item_pace.rows(), shared))

    def threads_for(self, rows: int) -> int:
        """How many threads a message of so many rows has work for."""
        return max(1, -(-min(rows, self.at_once()) // self.item_pace.rows()))

    def _mine_of(self, ids: tuple[UUID, ...]) -> tuple[UUID, ...]:
        """As many of a message's rows as this worker takes on; the others ring again, for others."""
        count = self.at_once()
        if ids[count:]:
            try:
                self._put_back(ids[count:])
            except BrokerUnavailable as exc:  # their ring is lost, and the sweeper finds it out
                log.warning("put_back_failed", count=len(ids) - count, error=str(exc))
        return ids[:count]

    def _share_out(self, parts: Sequence[list[Claim]], claim_s: float) -> None:
        for part in parts:
            assert self._fan_out is not None, "there is one part where nothing is shared out"
            self._fan_out.share(partial(self._work_apart, part, claim_s))

    def _work_apart(self, part: list[Claim], claim_s: float) -> None:
        """What came in a message with others, shown as a task of its own.

        Nobody waits for it to be written: it is told of in the thread that wrote it, with its whole group, rather than in
        a thread for each that is woken for that. Where there are traces it waits: a span ends in its own thread.
        """
        tasks = {item.id: task_progress.begin(item.id, item.uri, self._named(item)) for item in part}
        try:
            with task_progress.task(str(part[0].id)):
                if tracing.is_on():
                    for item, outcome in self._hold_all(part, claim_s):
                        tasks.pop(item.id).end(outcome)
                    return
                for ended in self._hold_each(part, claim_s):
                    ended.written.add_done_callback(partial(self._end_apart, ended, tasks.pop(ended.item.id)))
        finally:  # none is left, but for a defect
            self.held_claims.drop(*(item for item in part if item.id in tasks))
            for task in tasks.values():
                task.end("lost")

    def _end_apart(self, ended: _ItemEnd, task: task_progress.TaskRow, _: Future[WriteResult]) -> None:
        try:
            task.end(self._told(ended))
        finally:
            self.held_claims.drop(ended.item)

    def _named(self, item: Claim) -> str:
        """The policy's ref, where it can be had: only to be shown."""
        try:
            return self._policy(item.policy_revision_id).ref
        except VetlineError:
            return ""

    def _hold_all(self, claims: list[Claim], claim_s: float) -> list[tuple[Claim, str]]:
        """The outcome of each, once it is written."""
        if len(claims) > 1:
            return [(ended.item, self._told(ended)) for ended in self._hold_each(claims, claim_s)]
        (item,) = claims
        with self._about(item, claim_s):
            return [(item, self._told(self._hold(item, LazyImage(item.uri))))]

    def _hold_each(self, claims: list[Claim], claim_s: float) -> list[_ItemEnd]:
        """Each under its own policy, by itself; the image is fetched and decoded once for all of them.

        One after the other: SGLang has the image's prefix in its cache once the first is answered. Suspects of
        having killed workers come last. What is judged is written while the next is looked at.
        """
        subjects = {item.uri: LazyImage(item.uri) for item in claims}
        endings: list[_ItemEnd] = []
        for item in sorted(claims, key=lambda claim: (claim.crashes, claim.id)):
            with self._about(item, claim_s):
                endings.append(self._hold(item, subjects[item.uri]))
        return endings

    @contextmanager
    def _about(self, item: Claim, claim_s: float) -> Iterator[None]:
        with (
            tracing.attempt(item.id, attempt=item.attempt, worker=self._worker),
            # Every line that is logged on the way, by whatever library, says which item it is about.
            bound_contextvars(assessment=str(item.id), attempt=item.attempt),
        ):
            tracing.claimed(claim_s)
            yield

    def _hold(self, item: Claim, subject: LazyImage) -> _ItemEnd:
        faults.at("after_claim", item.uri)
        timer = StepTimer()
        started = time.monotonic()
        verdict: Verdict | None = None
        try:
            verdict = self._assess(item, subject, self._policy(item.policy_revision_id), timer)
            faults.at("before_record", item.uri)
            outcome, written = verdict.judgement.rating.value.lower(), self._recorder.put(item, verdict)
        except VetlineError as error:
            verdict = None
            outcome, written = self._end_badly(item, error, timer)
        except Exception as exc:  # ours to mend, but the item must still end somewhere that can be listed
            log.exception("assess_failed", assessment=str(item.id))
            verdict = None
            outcome, written = self._end_defect(item, exc, timer)
        self.item_pace.note(time.monotonic() - started)
        put_at = time.perf_counter()
        written.add_done_callback(partial(self._let_go, item))
        return _ItemEnd(item, outcome, timer, written, verdict, put_at)

    def _let_go(self, item: Claim, written: Future[WriteResult]) -> None:
        """In the thread that wrote it, so that no beat finds it gone."""
        if written.exception() is None:
            self.held_claims.drop(item)
            faults.at("after_record", item.uri)

    def _told(self, ended: _ItemEnd) -> str:
        """Its outcome, once it is written."""
        item, outcome = ended.item, ended.outcome
        try:
            with ended.timer.step("record", since=ended.put_at) if ended.verdict else nullcontext():
                ending = ended.written.result()
        except Exception as exc:  # as in _hold: a verdict that the ledger cannot take
            log.exception("record_failed", assessment=str(item.id))
            outcome, written = self._end_defect(item, exc, ended.timer)
            ending = written.result()
        else:
            if ended.verdict is not None:
                count_verdict(self._policy(item.policy_revision_id).policy, ended.verdict, ending)
        took_ms = {f"{step}_ms": ms for step, ms in ended.timer.timings_ms.items()}
        told = log.bind(assessment=str(item.id), attempt=item.attempt, outcome=outcome, **took_ms)
        if ending is WriteResult.LOST:
            told.warning("lease_lost_at_the_fence")
            return "lease_lost"
        told.info("assessed")
        return outcome

    def _end_defect(self, item: Claim, exc: Exception, timer: StepTimer) -> tuple[str, Future[WriteResult]]:
        defect = Defect(f"{type(exc).__name__}: {redact_text(str(exc))}")
        return self._end_badly(item, defect, timer)

    def _record(self, judged: Sequence[Judged]) -> list[WriteResult]:
        endings = self._write(lambda: record_all(self._engine, judged, worker=self._worker))
        self.on_recorded()
        return endings

    def _end_badly(
        self, item: Claim, error: VetlineError, timer: StepTimer
    ) -> tuple[str, Future[WriteResult]]:
        is_final = not isinstance(error, Unavailable) and not self._may_try_again(item, error)
        word = "failed" if is_final else "back" if isinstance(error, Unavailable) else "later"
        with timer.step("record"):
            ending = self._write_failure(item, error, dict(timer.timings_ms))
        count_failure(error, ending, is_final=is_final)
        tracing.failed(error.code)
        return f"{word}:{error.code}", _known(ending)

    def _may_try_again(self, item: Claim, error: VetlineError) -> bool:
        return isinstance(error, Transient) and item.charged < self._lease.max_attempts

    def _write_failure(self, item: Claim, error: VetlineError, timings_ms: dict[str, float]) -> WriteResult:
        """Give back, put off or fail, as the error's class says."""
        if isinstance(error, Unavailable):
            self._intake_gate.shut(error)
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

    def _give_back(self, item: Claim, error: Unavailable) -> WriteResult:
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
                self._intake_gate.shut(exc)
                log.warning("write_waits_for_ledger", error=str(exc))
                time.sleep(_WRITE_AGAIN_S)


def _known(ending: WriteResult) -> Future[WriteResult]:
    future: Future[WriteResult] = Future()
    future.set_result(ending)
    return future

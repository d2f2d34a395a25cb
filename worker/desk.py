"""The desk: where a claim comes in and its outcome goes out. The only place where the worker meets the ledger."""

import random
import threading
import time
from collections.abc import Callable
from functools import lru_cache, partial
from uuid import UUID

import structlog
from sqlalchemy import Engine
from structlog.contextvars import bound_contextvars

from moderation import faults, metrics, tracing
from moderation.assessment import Claim, Submission
from moderation.errors import Defect, LedgerUnavailable, Transient, Unavailable, VetlineError
from moderation.ledger.claim import claim, defer_suspects
from moderation.ledger.ending import Ending, fail, give_back, record, try_later
from moderation.ledger.policies import load_revision, pin
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

log = structlog.get_logger()

_WRITE_AGAIN_S = 0.5
_GIVEN_BACK_DELAY_S = 2.0  # long enough not to come straight back to the worker whose runtime is down

_CLAIM_SECONDS = metrics.STEP_SECONDS.labels("claim")  # no item's clock runs yet
_DOCK_WAIT_S = 3.0  # a trial takes a fraction of that once its process runs

Assess = Callable[[Claim, Subject, PolicyRevision, Clock], Verdict]


class Desk:
    """Claims rows, has them assessed, and writes what came of it, under the fence.

    assess: the path of one image; raises our own errors.
    """

    def __init__(
        self, engine: Engine, *, worker: str, lease: LeaseSettings, gate: Gate, assess: Assess
    ) -> None:
        self._engine = engine
        self._worker = worker
        self._lease = lease
        self._gate = gate
        self._assess = assess
        self._closing = threading.Event()
        self.hand = Hand()
        self._dock = Dock()
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

    def work(self, id_: UUID) -> str:
        """Claim this row and its siblings, if due; assess and end each. Says in a word each what came of them:

        safe, unsafe, failed:CODE, later:CODE (tried again), back:CODE (given back), lease_lost; or why none was claimed.
        """
        self.taken_at = time.monotonic()
        faults.at("after_pop")
        if self._closing.is_set():
            return "closing"
        with self._dock.entered() as alone:
            try:
                start = time.perf_counter()
                claims = self._claim(id_, suspects=alone)
                claim_s = time.perf_counter() - start
            except LedgerUnavailable as exc:
                self._gate.shut(exc)  # the row stays due; the sweeper rings it again
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

    def _claim(self, id_: UUID, *, suspects: bool) -> list[Claim]:
        """The claims of this row and its siblings; a suspect's only where no other is in hand.

        Suspects wait outside: in hand, they would go down with the worker again and again, and keep others out.
        """
        suspect = self._lease.suspect_crashes
        take = partial(claim, self._engine, [id_], worker=self._worker, lease_s=self._lease.lease_s)
        if suspects:
            return take()
        claims = take(suspect=suspect)
        if claims or not defer_suspects(self._engine, [id_], suspect=suspect, delay_s=_DOCK_WAIT_S):
            return claims
        return take() if self._dock.enter(_DOCK_WAIT_S) else []

    def _is_suspect(self, item: Claim) -> bool:
        return item.crashes >= self._lease.suspect_crashes

    def _hold_all(self, claims: list[Claim], claim_s: float) -> str:
        """Each under its own policy, by itself; the image is fetched and decoded once for all of them.

        One after the other: SGLang has the image's prefix in its cache once the first is answered. Suspects of
        having killed workers come last.
        """
        subjects = {item.uri: Subject(item.uri) for item in claims}
        outcomes = []
        for item in sorted(claims, key=lambda claim: (claim.crashes, claim.id)):
            with (
                tracing.attempt(item.id, attempt=item.attempt, worker=self._worker),
                # Every line that is logged on the way, by whatever library, says which item it is about.
                bound_contextvars(assessment=str(item.id), attempt=item.attempt),
            ):
                tracing.claimed(claim_s)
                outcomes.append(self._hold(item, subjects[item.uri]))
            self.hand.drop(item)
        return " ".join(outcomes)

    def _hold(self, item: Claim, subject: Subject) -> str:
        faults.at("after_claim", item.uri)
        clock = Clock()
        try:
            ending, outcome = self._walk(item, subject, clock)
        except VetlineError as error:
            ending, outcome = self._end_badly(item, error, clock)
        except Exception as exc:  # ours to mend, but the item must still end somewhere that can be listed
            log.exception("assess_failed")
            defect = Defect(f"{type(exc).__name__}: {redact_text(str(exc))}")
            ending, outcome = self._end_badly(item, defect, clock)
        took_ms = {f"{step}_ms": ms for step, ms in clock.timings_ms.items()}
        told = log.bind(outcome=outcome, **took_ms)
        if ending is Ending.LOST:
            told.warning("lease_lost_at_the_fence")
            return "lease_lost"
        told.info("assessed")
        return outcome

    def _walk(self, item: Claim, subject: Subject, clock: Clock) -> tuple[Ending, str]:
        policy = self._policy(item.policy_revision_id)
        verdict = self._assess(item, subject, policy, clock)
        faults.at("before_record", item.uri)
        with clock.step("record"):
            ending = self._write(lambda: record(self._engine, item, verdict, worker=self._worker))
        faults.at("after_record", item.uri)
        count_verdict(policy.policy, verdict, ending)
        return ending, verdict.judgement.rating.value.lower()

    def _end_badly(self, item: Claim, error: VetlineError, clock: Clock) -> tuple[Ending, str]:
        is_final = not isinstance(error, Unavailable) and not self._may_try_again(item, error)
        word = "failed" if is_final else "back" if isinstance(error, Unavailable) else "later"
        with clock.step("record"):
            ending = self._write_failure(item, error, dict(clock.timings_ms))
        count_failure(error, ending, is_final=is_final)
        tracing.failed(error.code)
        return ending, f"{word}:{error.code}"

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
        return give_back(self._engine, item, worker=self._worker, error=error, delay_s=_GIVEN_BACK_DELAY_S)

    def _delay_s(self, item: Claim, error: Transient) -> float:
        """Full jitter under a doubling bound, and never sooner than the other side asked for.

        The same for siblings, so that they come back together.
        """
        bound_s = min(self._lease.retry_cap_s, self._lease.retry_base_s * 2 ** (item.charged - 1))
        jitter = random.Random(f"{item.submission_id or item.id} {item.charged}")  # noqa: S311 - no secret
        return max(0.1, jitter.uniform(0, bound_s), error.retry_after_s or 0.0)

    def _write(self, write: Callable[[], Ending]) -> Ending:
        """Write until Postgres took it: an answer that cost a model call is not thrown away for a restart."""
        while True:
            try:
                return write()
            except LedgerUnavailable as exc:
                self._gate.shut(exc)
                log.warning("write_waits_for_ledger", error=str(exc))
                time.sleep(_WRITE_AGAIN_S)

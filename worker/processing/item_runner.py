"""The item runner: has one claimed item assessed, has its outcome written, and reports what came of it."""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import structlog
from structlog.contextvars import bound_contextvars

from moderation import faults, tracing
from moderation.assessment import Claim
from moderation.errors import Defect, VetlineError
from moderation.ledger.outcomes import WriteResult
from moderation.redaction import redact_text
from moderation.settings import LeaseSettings
from moderation.verdict import Verdict
from worker.events.outcome import Outcome, OutcomeKind, rated
from worker.processing.assess import LazyImage
from worker.processing.assessor import Assessor
from worker.processing.batch_recorder import BatchRecorder
from worker.processing.outcome_metrics import count_failure, count_verdict
from worker.processing.policy_cache import PolicyCache
from worker.processing.retry_policy import decide
from worker.processing.step_timer import StepTimer

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class ItemRun:
    """An item that was assessed. A verdict may still be on its way to the ledger.

    outcome: what it is if the write succeeds. verdict: None where it ends without one.
    queued_at: by time.perf_counter, when the write was asked for.
    """

    item: Claim
    outcome: Outcome
    timer: StepTimer
    written: Future[WriteResult]
    verdict: Verdict | None
    queued_at: float


class ItemRunner:
    """A verdict goes from here to the batch recorder, and comes back in `finish`."""

    def __init__(
        self,
        assessor: Assessor,
        batch_recorder: BatchRecorder,
        policies: PolicyCache,
        *,
        worker: str,
        lease: LeaseSettings,
    ) -> None:
        self._assessor = assessor
        self._batch_recorder = batch_recorder
        self._outcome_writer = batch_recorder.outcome_writer
        self._policies = policies
        self._held_claims = batch_recorder.held_claims
        self._item_pace = batch_recorder.item_pace
        self._lease = lease
        self._worker = worker

    def run(self, items: Sequence[Claim], claim_s: float) -> list[tuple[Claim, Outcome]]:
        """Assess each and wait until each is written. claim_s: how long claiming them took, for the trace."""
        if len(items) > 1:
            return [(run.item, self.finish(run)) for run in self.start(items, claim_s)]
        (item,) = items
        with self._in_context(item, claim_s):
            return [(item, self.finish(self._assess(item, LazyImage(item.uri))))]

    def start(self, items: Sequence[Claim], claim_s: float) -> list[ItemRun]:
        """Assess each under its own policy, by itself; the image is fetched and decoded once for all of them.

        One after the other: SGLang has the image's prefix in its cache once the first is answered. Suspects of
        having killed workers come last. What is judged is written while the next is assessed.
        """
        images = {item.uri: LazyImage(item.uri) for item in items}
        runs: list[ItemRun] = []
        for item in sorted(items, key=lambda item: (item.crashes, item.id)):
            with self._in_context(item, claim_s):
                runs.append(self._assess(item, images[item.uri]))
        return runs

    def finish(self, run: ItemRun) -> Outcome:
        """Wait until it is written; count it and log it."""
        item, outcome = run.item, run.outcome
        try:
            with run.timer.step("record", since=run.queued_at) if run.verdict else nullcontext():
                result = run.written.result()
        except Exception as exc:  # as in _assess: a verdict that the ledger cannot take
            log.exception("record_failed", assessment=str(item.id))
            outcome, result = self._end_without_verdict(item, _defect(exc), run.timer)
        else:
            if run.verdict is not None:
                policy = self._policies.get(item.policy_revision_id).policy
                count_verdict(policy, run.verdict, result)
        return self._logged(run, outcome, result)

    def stop(self) -> None:
        """After the last item."""
        self._batch_recorder.stop()

    @contextmanager
    def _in_context(self, item: Claim, claim_s: float) -> Iterator[None]:
        with (
            tracing.attempt(item.id, attempt=item.attempt, worker=self._worker),
            # Every line that is logged on the way, by whatever library, says which item it is about.
            bound_contextvars(assessment=str(item.id), attempt=item.attempt),
        ):
            tracing.claimed(claim_s)
            yield

    def _assess(self, item: Claim, image: LazyImage) -> ItemRun:
        faults.at("after_claim", item.uri)
        timer = StepTimer()
        started = time.monotonic()
        try:
            verdict = self._verdict(item, image, timer)
            written = self._batch_recorder.put(item, verdict)
            return ItemRun(
                item, rated(verdict.judgement.rating), timer, written, verdict, time.perf_counter()
            )
        except VetlineError as error:
            return self._run_without_verdict(item, error, timer)
        except Exception as exc:  # ours to mend, but the item must still end somewhere that can be listed
            log.exception("assess_failed", assessment=str(item.id))
            return self._run_without_verdict(item, _defect(exc), timer)
        finally:
            self._item_pace.note(time.monotonic() - started)

    def _verdict(self, item: Claim, image: LazyImage, timer: StepTimer) -> Verdict:
        verdict = self._assessor.assess(item, image, self._policies.get(item.policy_revision_id), timer)
        faults.at("before_record", item.uri)
        return verdict

    def _run_without_verdict(self, item: Claim, error: VetlineError, timer: StepTimer) -> ItemRun:
        outcome, result = self._end_without_verdict(item, error, timer)
        written: Future[WriteResult] = Future()
        written.set_result(result)
        return ItemRun(item, outcome, timer, written, None, time.perf_counter())

    def _end_without_verdict(
        self, item: Claim, error: VetlineError, timer: StepTimer
    ) -> tuple[Outcome, WriteResult]:
        decision = decide(error, item, self._lease)
        with timer.step("record"):
            result = self._outcome_writer.end_without_verdict(
                item, error, decision, timings_ms=dict(timer.timings_ms)
            )
        self._held_claims.drop(item)
        count_failure(error, result, decision.kind)
        tracing.failed(error.code)
        faults.at("after_record", item.uri)
        return Outcome(decision.kind, error.code), result

    def _logged(self, run: ItemRun, outcome: Outcome, result: WriteResult) -> Outcome:
        times_ms = {f"{step}_ms": ms for step, ms in run.timer.timings_ms.items()}
        fields = log.bind(
            assessment=str(run.item.id), attempt=run.item.attempt, outcome=str(outcome), **times_ms
        )
        if result is WriteResult.LOST:
            fields.warning("lease_lost_at_the_fence")
            return Outcome(OutcomeKind.LEASE_LOST)
        fields.info("assessed")
        return outcome


def _defect(exc: Exception) -> Defect:
    return Defect(f"{type(exc).__name__}: {redact_text(str(exc))}")

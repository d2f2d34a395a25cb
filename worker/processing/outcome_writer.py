"""The outcome writer: the only place where the worker writes to the ledger what came of its items, under the fence."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import structlog
from sqlalchemy import Engine

from moderation.assessment import Claim
from moderation.errors import LedgerUnavailable, RuntimeCrashed, Unavailable, VetlineError
from moderation.ledger.outcomes import WriteResult, fail, give_back, give_back_crashed, try_later
from moderation.ledger.record import Judged, record_all
from worker.events.outcome import OutcomeKind
from worker.health.intake_gate import IntakeGate
from worker.processing.retry_policy import RetryDecision
from worker.webhooks.dispatcher import WebhookDispatcher

log = structlog.get_logger()

_WRITE_AGAIN_S = 0.5

T = TypeVar("T")


class OutcomeWriter:
    """Writes until Postgres has taken it, and shuts the intake gate for as long as it does not."""

    def __init__(
        self, engine: Engine, *, worker: str, intake_gate: IntakeGate, webhook_dispatcher: WebhookDispatcher
    ) -> None:
        self._engine = engine
        self._worker = worker
        self._intake_gate = intake_gate
        self._webhook_dispatcher = webhook_dispatcher

    def record(self, judged: Sequence[Judged]) -> list[WriteResult]:
        """Record verdicts in one statement. Returns for each, in order, what became of its write."""
        results = self._until_written(lambda: record_all(self._engine, judged, worker=self._worker))
        self._webhook_dispatcher.recorded()
        return results

    def end_without_verdict(
        self, item: Claim, error: VetlineError, decision: RetryDecision, *, timings_ms: Mapping[str, float]
    ) -> WriteResult:
        """Fail it, put it off or give it back, as was decided."""
        if isinstance(error, Unavailable):
            self._intake_gate.shut(error)
        if decision.kind is OutcomeKind.BACK:
            return self._until_written(lambda: self._give_back(item, error, decision.delay_s))
        if decision.kind is OutcomeKind.LATER:
            return self._until_written(
                lambda: try_later(
                    self._engine,
                    item,
                    error,
                    worker=self._worker,
                    delay_s=decision.delay_s,
                    timings_ms=timings_ms,
                )
            )
        return self._until_written(
            lambda: fail(self._engine, item, error, worker=self._worker, timings_ms=timings_ms)
        )

    def give_back_at_once(self, items: Sequence[Claim]) -> None:
        """Give these back uncharged, with one try each: a stop does not wait for the ledger."""
        for item in items:
            try:
                give_back(self._engine, item, worker=self._worker)
            except LedgerUnavailable as exc:  # the lease runs out by itself
                log.warning("give_back_failed", assessment=str(item.id), error=str(exc))

    def _give_back(self, item: Claim, error: VetlineError, delay_s: float) -> WriteResult:
        if isinstance(error, RuntimeCrashed):
            return give_back_crashed(self._engine, item, error, worker=self._worker, delay_s=delay_s)
        return give_back(self._engine, item, worker=self._worker, error=error, delay_s=delay_s)

    def _until_written(self, write: Callable[[], T]) -> T:
        """An answer that cost a model call is not thrown away for a restart of Postgres."""
        while True:
            try:
                return write()
            except LedgerUnavailable as exc:
                self._intake_gate.shut(exc)
                log.warning("write_waits_for_ledger", error=str(exc))
                time.sleep(_WRITE_AGAIN_S)

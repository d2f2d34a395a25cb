"""Counts what came of an attempt, in a few microseconds. The names are in `moderation.metrics`."""

from collections.abc import Iterable

from moderation import metrics
from moderation.errors import VetlineError
from moderation.ledger.outcomes import WriteResult
from moderation.verdict import Ask, Verdict
from worker.events.outcome import OutcomeKind

_ATTEMPT_LABELS = {
    OutcomeKind.FAILED: "failed",
    OutcomeKind.LATER: "retried",
    OutcomeKind.BACK: "given_back",
}


def count_verdict(policy: str, verdict: Verdict, result: WriteResult) -> None:
    """policy: its id, without the revision."""
    judgement = verdict.judgement
    if verdict.reused_from is None:
        _count_asks(judgement.asks)
    if result is WriteResult.LOST:
        return _count_attempt("lost", "none")
    _count_attempt("done", "none")
    reused = "yes" if verdict.reused_from else "no"
    category = metrics.category_id(judgement.category)
    metrics.VERDICTS.labels(policy, judgement.rating.value, category, reused).inc()
    if judgement.needs_review:
        metrics.REVIEWS.labels(policy).inc()
    return None


def count_failure(error: VetlineError, result: WriteResult, kind: OutcomeKind) -> None:
    """kind: FAILED, LATER or BACK."""
    _count_asks(error.asks)
    if result is WriteResult.LOST:
        return _count_attempt("lost", error.code)
    return _count_attempt(_ATTEMPT_LABELS[kind], error.code)


def _count_attempt(outcome: str, code: str) -> None:
    metrics.ATTEMPTS.labels(outcome, code).inc()
    if outcome == "lost":
        metrics.LEASES_LOST.labels("fence").inc()


def _count_asks(asks: Iterable[Ask]) -> None:
    for ask in asks:
        metrics.ASKS.labels(ask.rung.value, "malformed" if ask.problem else "parsed").inc()

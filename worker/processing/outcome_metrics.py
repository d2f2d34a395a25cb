"""Counts what came of an attempt, in a few microseconds. The names are in `moderation.metrics`."""

from collections.abc import Iterable

from moderation import metrics
from moderation.errors import Unavailable, VetlineError
from moderation.ledger.outcomes import WriteResult
from moderation.verdict import Ask, Verdict


def count_verdict(policy: str, verdict: Verdict, ending: WriteResult) -> None:
    """policy: its id, without the revision."""
    judgement = verdict.judgement
    if verdict.reused_from is None:
        _count_asks(judgement.asks)
    if ending is WriteResult.LOST:
        return _count_attempt("lost", "none")
    _count_attempt("done", "none")
    reused = "yes" if verdict.reused_from else "no"
    category = metrics.category_id(judgement.category)
    metrics.VERDICTS.labels(policy, judgement.rating.value, category, reused).inc()
    if judgement.needs_review:
        metrics.REVIEWS.labels(policy).inc()
    return None


def count_failure(error: VetlineError, ending: WriteResult, *, is_final: bool) -> None:
    """is_final: whether the item ends with it, rather than being tried again or given back."""
    _count_asks(error.asks)
    if ending is WriteResult.LOST:
        return _count_attempt("lost", error.code)
    if is_final:
        return _count_attempt("failed", error.code)
    return _count_attempt("given_back" if isinstance(error, Unavailable) else "retried", error.code)


def _count_attempt(outcome: str, code: str) -> None:
    metrics.ATTEMPTS.labels(outcome, code).inc()
    if outcome == "lost":
        metrics.LEASES_LOST.labels("fence").inc()


def _count_asks(asks: Iterable[Ask]) -> None:
    for ask in asks:
        metrics.ASKS.labels(ask.rung.value, "malformed" if ask.problem else "parsed").inc()

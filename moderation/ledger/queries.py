"""Read-only queries for people and reports."""

from collections.abc import Iterator
from typing import Any

from sqlalchemy import Engine, text

from moderation.ledger.engine import autocommit, reaching_postgres

Row = dict[str, Any]
_PAGE = 1000  # rows fetched at a time: constant memory for any number of verdicts

_SWEPT = text("""
    SELECT extract(epoch FROM now() - swept_at)::float AS age_s, worker, rung, expired FROM sweep WHERE id = 1
""")

_VERDICTS = text("""
    SELECT a.id, a.uri, r.policy || '@' || r.revision AS policy, a.batch, a.key, a.metadata,
           v.rating, v.category, v.rationale, v.rationale_truncated, v.needs_review, v.p_unsafe,
           v.p_unsafe_calibrated, v.judge, v.model, v.rung, v.bytes_sha256, v.pixels_sha256, v.media_type,
           v.width, v.height, v.timings_ms, v.attempt, v.recorded_at, v.views_differ, v.review_reasons
    FROM verdict v JOIN assessment a ON a.id = v.assessment_id
    JOIN policy_revision r ON r.id = v.policy_revision_id
    WHERE a.purpose IS NULL AND (CAST(:batch AS text) IS NULL OR a.batch = :batch)
        AND (CAST(:rating AS text) IS NULL OR v.rating = :rating)
        AND (CAST(:policy AS text) IS NULL OR a.policy = :policy)
    ORDER BY v.seq
""")


def last_sweep(engine: Engine) -> Row | None:
    """When the ledger was last swept (age_s, seconds), by which worker, and what it did in all."""
    rows = _all(engine, _SWEPT, {})
    return rows[0] if rows else None


def verdicts(
    engine: Engine, *, batch: str | None = None, rating: str | None = None, policy: str | None = None
) -> Iterator[Row]:
    """Verdicts in the order they were written, streamed in constant memory."""
    values = {"batch": batch, "rating": rating, "policy": policy}
    # A server-side cursor lives in a transaction, so not on an autocommit connection.
    streaming = engine.execution_options(isolation_level="READ COMMITTED")
    with reaching_postgres(), streaming.connect() as connection:
        result = connection.execution_options(yield_per=_PAGE).execute(_VERDICTS, values)
        for row in result.mappings():
            yield dict(row)


def _all(engine: Engine, statement: Any, values: dict[str, Any]) -> list[Row]:
    with autocommit(engine) as connection:
        return [dict(row) for row in connection.execute(statement, values).mappings()]

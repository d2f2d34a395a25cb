"""Ends an attempt without a verdict: failed, put off, or given back. Each is one fenced statement, safe to repeat.

A writer whose lease was taken finds no row at its fence and changes nothing. A lost reply is settled by reading the
attempt's own row, never by a guess.
"""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any
from uuid import UUID

from pydantic_core import to_json
from sqlalchemy import Engine, TextClause, text

from moderation.assessment import Claim
from moderation.errors import VetlineError
from moderation.ledger.engine import autocommit
from moderation.storable import storable
from moderation.verdict import Ask


class WriteResult(StrEnum):
    """What became of a write at the fence."""

    WRITTEN = "written"
    REPEATED = "repeated"  # our own earlier write had been committed, though its reply was lost
    LOST = "lost"  # the lease was taken: somebody else holds or has ended this assessment


_ENDED = """
    WITH ended AS (
        UPDATE assessment SET {changes}
        WHERE id = :id AND attempt = :attempt AND state = 'running'
        RETURNING id, attempt, claimed_at
    ), kept AS (
        INSERT INTO attempt (assessment_id, attempt, outcome, worker, claimed_at, error_code, error_detail,
                             timings_ms, asks)
        SELECT id, attempt, :outcome, :worker, claimed_at, :error_code, :error_detail,
               CAST(:timings_ms AS jsonb), CAST(:asks AS jsonb)
        FROM ended
    )
    SELECT count(*) FROM ended
"""

_FAILED = """state = 'failed', lease_until = NULL, ended_at = now(),
             error_code = :error_code, error_detail = :error_detail"""
# A row that waits for its time rings then; one that is due at once goes before all others of its priority.
_QUEUED = """state = 'queued', lease_until = NULL,
             not_before = CASE WHEN :delay_s > 0 THEN now() + make_interval(secs => :delay_s) END,
             ring_at = CASE WHEN :delay_s > 0 THEN now() + make_interval(secs => :delay_s) ELSE 'epoch' END,
             error_code = :error_code, error_detail = :error_detail"""
_UNCHARGED = _QUEUED + ", charged = greatest(charged - 1, 0)"
_UNCHARGED_CRASH = _UNCHARGED + ", crashes = crashes + 1"


def _ended(changes: str) -> TextClause:
    return text(_ENDED.format(changes=changes))


_FAIL = _ended(_FAILED)
_TRY_LATER = _ended(_QUEUED)
_GIVE_BACK = _ended(_UNCHARGED)
_CRASHED = _ended(_UNCHARGED_CRASH)

_RELEASE = text("""
    WITH doubtful AS (
        SELECT id FROM assessment WHERE id = ANY(:ids) AND state = 'running' AND worker = :worker
        ORDER BY id FOR UPDATE
    ), freed AS (
        UPDATE assessment a SET
            state = 'queued', lease_until = NULL, ring_at = timestamptz 'epoch', charged = greatest(a.charged - 1, 0)
        FROM doubtful d WHERE a.id = d.id
        RETURNING a.id, a.attempt, a.claimed_at
    )
    INSERT INTO attempt (assessment_id, attempt, outcome, worker, claimed_at, error_code, error_detail)
    SELECT id, attempt, 'given_back', :worker, claimed_at, 'ledger_unavailable', 'the reply to its claim was lost'
    FROM freed
    RETURNING assessment_id
""")

_OWN = text("""
    SELECT outcome FROM attempt WHERE assessment_id = :id AND attempt = :attempt AND worker = :worker
""")


def fail(
    engine: Engine, claim: Claim, error: VetlineError, *, worker: str, timings_ms: Mapping[str, float]
) -> WriteResult:
    """End the assessment as failed under the error's code."""
    return _write(engine, _FAIL, _attempt(claim, "failed", worker, error=error, timings_ms=timings_ms))


def try_later(
    engine: Engine,
    claim: Claim,
    error: VetlineError,
    *,
    worker: str,
    delay_s: float,
    timings_ms: Mapping[str, float],
) -> WriteResult:
    """Queue it again after delay_s seconds; the attempt stays charged."""
    values = _attempt(claim, "retried", worker, error=error, timings_ms=timings_ms)
    return _write(engine, _TRY_LATER, values | {"delay_s": delay_s})


def give_back(
    engine: Engine, claim: Claim, *, worker: str, error: VetlineError | None = None, delay_s: float = 0.0
) -> WriteResult:
    """Queue it again uncharged: a stop or an unavailable runtime was to blame, not the item."""
    return _write(
        engine, _GIVE_BACK, _attempt(claim, "given_back", worker, error=error) | {"delay_s": delay_s}
    )


def give_back_crashed(
    engine: Engine, claim: Claim, error: VetlineError, *, worker: str, delay_s: float = 0.0
) -> WriteResult:
    """As give_back, and counted as a crash: the runtime went down with it in hand, and two of those make a suspect."""
    return _write(engine, _CRASHED, _attempt(claim, "crashed", worker, error=error) | {"delay_s": delay_s})


def release_doubtful(engine: Engine, ids: Sequence[UUID], *, worker: str) -> list[UUID]:
    """Give back those of these rows that run under our name, though the claim's reply was lost. Uncharged.

    ids: rows that this worker asked for, never got, and does not hold by a later claim.
    """
    with autocommit(engine) as connection:
        return list(connection.execute(_RELEASE, {"ids": list(ids), "worker": worker}).scalars())


def _attempt(
    claim: Claim,
    outcome: str,
    worker: str,
    *,
    error: VetlineError | None = None,
    timings_ms: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    kept: Sequence[Ask] = error.asks if error else ()
    return {
        "id": claim.id,
        "attempt": claim.attempt,
        "outcome": outcome,
        "worker": worker,
        "error_code": error.code if error else None,
        "error_detail": str(error)[:2000] if error else None,
        "timings_ms": as_json(timings_ms) if timings_ms else None,
        "asks": as_json([ask.model_dump() for ask in kept]) if kept else None,
    }


def _storable(value: Any) -> Any:
    """With every text in it as Postgres can hold it."""
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, Mapping):
        return {key: _storable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_storable(item) for item in value]
    return value


def as_json(value: Any) -> str:
    """JSON that Postgres can hold."""
    return to_json(_storable(value)).decode()


def _write(engine: Engine, statement: TextClause, values: dict[str, Any]) -> WriteResult:
    values = {name: _storable(value) for name, value in values.items()}
    with autocommit(engine) as connection:
        if connection.execute(statement, values).scalar_one():
            return WriteResult.WRITTEN
        own_outcome = connection.execute(_OWN, {k: values[k] for k in ("id", "attempt", "worker")}).scalar()
        return WriteResult.REPEATED if own_outcome == values["outcome"] else WriteResult.LOST

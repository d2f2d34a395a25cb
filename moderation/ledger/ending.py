"""How an attempt ends: recorded, failed, put off, or given back. Each is one fenced statement, safe to repeat.

A writer whose lease was taken finds no row at its fence and changes nothing. A reply that was lost is settled by
reading the attempt's own row, never guessed.
"""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

from pydantic_core import to_json
from sqlalchemy import Engine, TextClause, text

from moderation.assessment import Claim
from moderation.errors import VetlineError
from moderation.ledger.engine import reaching_postgres
from moderation.redaction import without_secrets
from moderation.verdict import Ask, Verdict


class Ending(StrEnum):
    """What became of a write at the fence."""

    WRITTEN = "written"
    REPEATED = "repeated"  # our own earlier write had been committed, though its reply was lost
    LOST = "lost"  # the lease was taken: somebody else holds or has ended this assessment


_ENDED = """
    WITH ended AS (
        UPDATE assessment SET {changes}
        WHERE id = :id AND attempt = :attempt AND state = 'running'
        RETURNING id, attempt, claimed_at, policy_revision_id
    ), kept AS (
        INSERT INTO attempt (assessment_id, attempt, outcome, worker, claimed_at, error_code, error_detail,
                             timings_ms, asks)
        SELECT id, attempt, :outcome, :worker, claimed_at, :error_code, :error_detail,
               CAST(:timings_ms AS jsonb), CAST(:asks AS jsonb)
        FROM ended
    ){more}
    SELECT count(*) FROM ended
"""

_VERDICT_COLUMNS = (
    "rating", "category", "rationale", "rationale_truncated", "needs_review", "p_unsafe", "p_unsafe_calibrated",
    "rung", "finish_reason", "raw_output", "judge", "model", "weights_sha256", "runtime", "runtime_version",
    "template_mode", "prompt_sha256", "bytes_sha256", "pixels_sha256", "media_type", "width", "height", "frames",
    "byte_count", "view", "etag", "version", "pdq", "pdq_quality", "reused_from",
)  # fmt: skip

_VERDICT = f""", judged AS (
        INSERT INTO verdict (assessment_id, attempt, policy_revision_id, sampling, timings_ms,
                             {", ".join(_VERDICT_COLUMNS)})
        SELECT id, attempt, policy_revision_id, CAST(:sampling AS jsonb), CAST(:timings_ms AS jsonb),
               {", ".join(":" + column for column in _VERDICT_COLUMNS)}
        FROM ended
    )"""

# The full URI may hold a password or a signature: it is kept for as long as it may be fetched again. A failure may.
_DONE = """state = 'done', lease_until = NULL, ended_at = now(), error_code = NULL, error_detail = NULL,
           uri = :uri_without_secrets"""
_FAILED = """state = 'failed', lease_until = NULL, ended_at = now(),
             error_code = :error_code, error_detail = :error_detail"""
# A row that waits for its time rings then; one that is due at once goes before all others of its priority.
_QUEUED = """state = 'queued', lease_until = NULL,
             not_before = CASE WHEN :delay_s > 0 THEN now() + make_interval(secs => :delay_s) END,
             ring_at = CASE WHEN :delay_s > 0 THEN now() + make_interval(secs => :delay_s) ELSE 'epoch' END,
             error_code = :error_code, error_detail = :error_detail"""
_UNCHARGED = _QUEUED + ", charged = greatest(charged - 1, 0)"
_UNCHARGED_CRASH = _UNCHARGED + ", crashes = crashes + 1"


def _ended(changes: str, more: str = "") -> TextClause:
    return text(_ENDED.format(changes=changes, more=more))


_RECORD = _ended(_DONE, _VERDICT)
_FAIL = _ended(_FAILED)
_TRY_LATER = _ended(_QUEUED)
_GIVE_BACK = _ended(_UNCHARGED)
_CRASHED = _ended(_UNCHARGED_CRASH)

_OWN = text("""
    SELECT outcome FROM attempt WHERE assessment_id = :id AND attempt = :attempt AND worker = :worker
""")


def record(engine: Engine, claim: Claim, verdict: Verdict, *, worker: str) -> Ending:
    """Write verdict, attempt and state in one transaction, if the fence still holds."""
    judgement = verdict.judgement
    values = verdict.image.model_dump() | judgement.model_dump(exclude={"asks", "sampling", "rating", "rung"})
    values |= {"rating": judgement.rating.value, "rung": judgement.rung.value}
    values["sampling"] = _json(judgement.sampling)
    values["reused_from"] = verdict.reused_from
    values["uri_without_secrets"] = without_secrets(claim.uri)
    values |= _attempt(claim, "done", worker, timings_ms=verdict.timings_ms, asks=judgement.asks)
    return _write(engine, _RECORD, values)


def fail(
    engine: Engine, claim: Claim, error: VetlineError, *, worker: str, timings_ms: Mapping[str, float]
) -> Ending:
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
) -> Ending:
    """Queue it again after delay_s seconds; the attempt stays charged."""
    values = _attempt(claim, "retried", worker, error=error, timings_ms=timings_ms)
    return _write(engine, _TRY_LATER, values | {"delay_s": delay_s})


def give_back(
    engine: Engine, claim: Claim, *, worker: str, error: VetlineError | None = None, delay_s: float = 0.0
) -> Ending:
    """Queue it again uncharged: a stop or an unavailable runtime was to blame, not the item."""
    return _write(
        engine, _GIVE_BACK, _attempt(claim, "given_back", worker, error=error) | {"delay_s": delay_s}
    )


def give_back_crashed(
    engine: Engine, claim: Claim, error: VetlineError, *, worker: str, delay_s: float = 0.0
) -> Ending:
    """As give_back, and counted as a crash: the runtime went down with it in hand, and two of those make a suspect."""
    return _write(engine, _CRASHED, _attempt(claim, "crashed", worker, error=error) | {"delay_s": delay_s})


def _attempt(
    claim: Claim,
    outcome: str,
    worker: str,
    *,
    error: VetlineError | None = None,
    timings_ms: Mapping[str, float] | None = None,
    asks: Sequence[Ask] = (),
) -> dict[str, Any]:
    kept = asks or (error.asks if error else ())
    return {
        "id": claim.id,
        "attempt": claim.attempt,
        "outcome": outcome,
        "worker": worker,
        "error_code": error.code if error else None,
        "error_detail": str(error)[:2000] if error else None,
        "timings_ms": _json(timings_ms) if timings_ms else None,
        "asks": _json([ask.model_dump() for ask in kept]) if kept else None,
    }


def _storable(value: Any) -> Any:
    """As Postgres can hold it: a model may well emit NUL or half a surrogate pair."""
    if isinstance(value, str):
        whole = value if value.isascii() else value.encode("utf-8", "replace").decode()
        return whole.replace("\0", "\ufffd")
    if isinstance(value, Mapping):
        return {key: _storable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_storable(item) for item in value]
    return value


def _json(value: Any) -> str:
    return to_json(_storable(value)).decode()


def _write(engine: Engine, statement: TextClause, values: dict[str, Any]) -> Ending:
    values = {name: _storable(value) for name, value in values.items()}
    with reaching_postgres(), engine.connect() as connection:
        if connection.execute(statement, values).scalar_one():
            return Ending.WRITTEN
        standing = connection.execute(_OWN, {k: values[k] for k in ("id", "attempt", "worker")}).scalar()
        return Ending.REPEATED if standing == values["outcome"] else Ending.LOST

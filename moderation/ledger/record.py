"""Records verdicts, attempts and states in one statement and one commit, each row behind its own fence.

A batch costs one round trip, one flush of the log, and an eighth of the CPU that single writes cost. Each row still
has a result of its own: a writer whose lease was taken changes nothing and learns so, and the others in its batch
stand.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Engine, text

from moderation.assessment import Claim
from moderation.ledger.engine import autocommit
from moderation.ledger.outcomes import WriteResult, as_json
from moderation.redaction import without_secrets
from moderation.verdict import Verdict

# Column and type, as the statement reads them from JSON.
_VERDICT_COLUMNS = {
    "rating": "text", "category": "text", "rationale": "text", "rationale_truncated": "boolean",
    "needs_review": "boolean", "p_unsafe": "double precision", "p_unsafe_calibrated": "double precision",
    "rung": "text", "finish_reason": "text", "raw_output": "text", "judge": "text", "model": "text",
    "weights_sha256": "text", "runtime": "text", "runtime_version": "text", "template_mode": "text",
    "prompt_sha256": "text", "sampling": "jsonb", "bytes_sha256": "text", "pixels_sha256": "text",
    "media_type": "text", "width": "integer", "height": "integer", "frames": "integer", "byte_count": "bigint",
    "view": "text", "etag": "text", "version": "text", "pdq": "text", "pdq_quality": "smallint",
    "reused_from": "uuid", "timings_ms": "jsonb", "views_differ": "real", "review_reasons": "text[]",
}  # fmt: skip
_COLUMNS = ", ".join(_VERDICT_COLUMNS)
_GIVEN = ", ".join(f"{name} {kind}" for name, kind in _VERDICT_COLUMNS.items())

# Locked in order, so that two groups never wait for each other. The full URI may hold a password or a signature: it is
# kept for as long as it may be fetched again, and that is over.
_RECORD = text(f"""
    WITH given AS MATERIALIZED (
        SELECT * FROM json_to_recordset(CAST(:rows AS json)) AS r (
            assessment_id uuid, attempt integer, uri text, asks jsonb, {_GIVEN}
        )
    ), held AS (
        SELECT a.id FROM assessment a JOIN given g ON a.id = g.assessment_id AND a.attempt = g.attempt
        WHERE a.state = 'running' ORDER BY a.id FOR UPDATE OF a
    ), ended AS (
        UPDATE assessment a SET
            state = 'done', lease_until = NULL, ended_at = now(), error_code = NULL, error_detail = NULL, uri = g.uri
        FROM held, given g
        WHERE a.id = held.id AND g.assessment_id = a.id AND g.attempt = a.attempt AND a.state = 'running'
        RETURNING a.id, a.attempt, a.claimed_at, a.policy_revision_id
    ), kept AS (
        INSERT INTO attempt (assessment_id, attempt, outcome, worker, claimed_at, timings_ms, asks)
        SELECT e.id, e.attempt, 'done', :worker, e.claimed_at, g.timings_ms, g.asks
        FROM ended e JOIN given g ON g.assessment_id = e.id AND g.attempt = e.attempt
    ), judged AS (
        INSERT INTO verdict (assessment_id, attempt, policy_revision_id, {_COLUMNS})
        SELECT e.id, e.attempt, e.policy_revision_id, {", ".join("g." + name for name in _VERDICT_COLUMNS)}
        FROM ended e JOIN given g ON g.assessment_id = e.id AND g.attempt = e.attempt
    )
    SELECT id, attempt FROM ended
""")

# A reply that was lost is settled by reading the attempts' own rows, never guessed.
_OWN = text("""
    SELECT t.assessment_id, t.attempt
    FROM unnest(CAST(:ids AS uuid[]), CAST(:attempts AS integer[])) AS asked (id, attempt)
    JOIN attempt t ON t.assessment_id = asked.id AND t.attempt = asked.attempt
    WHERE t.worker = :worker AND t.outcome = 'done'
""")

Judged = tuple[Claim, Verdict]


def record_all(engine: Engine, judged: Sequence[Judged], *, worker: str) -> list[WriteResult]:
    """Write many in one transaction and say for each, in order, what became of it. Safe to repeat."""
    values = {"rows": as_json([_row(claim, verdict) for claim, verdict in judged]), "worker": worker}
    with autocommit(engine) as connection:
        written = {(row.id, row.attempt) for row in connection.execute(_RECORD, values)}
        others = [claim for claim, _ in judged if (claim.id, claim.attempt) not in written]
        asked = {"ids": [c.id for c in others], "attempts": [c.attempt for c in others], "worker": worker}
        own = (
            {(row.assessment_id, row.attempt) for row in connection.execute(_OWN, asked)} if others else set()
        )
    return [_result((claim.id, claim.attempt), written, own) for claim, _ in judged]


def _result(fence: tuple[Any, int], written: set[Any], own: set[Any]) -> WriteResult:
    if fence in written:
        return WriteResult.WRITTEN
    return WriteResult.REPEATED if fence in own else WriteResult.LOST


def _row(claim: Claim, verdict: Verdict) -> dict[str, Any]:
    judgement = verdict.judgement
    row = verdict.image.model_dump() | judgement.model_dump(exclude={"asks"})
    row |= {"rating": judgement.rating.value, "rung": judgement.rung.value}
    row |= {"reused_from": verdict.reused_from, "timings_ms": verdict.timings_ms or None}
    row |= {"review_reasons": verdict.image.review_reasons or None}
    row |= {"assessment_id": claim.id, "attempt": claim.attempt, "uri": without_secrets(claim.uri)}
    row["asks"] = [ask.model_dump() for ask in judgement.asks] or None
    return row

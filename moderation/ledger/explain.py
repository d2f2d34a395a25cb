"""Reads everything that explains one assessment."""

from typing import Any
from uuid import UUID

from sqlalchemy import Engine, text

from moderation.ledger.engine import autocommit

Row = dict[str, Any]

_ONE = text("""
    SELECT a.id, a.uri, r.policy || '@' || r.revision AS policy, r.prompt_sha256 AS policy_sha256,
           a.batch, a.tenant, a.key, a.metadata, a.priority, a.state, a.attempt, a.charged, a.crashes, a.error_code,
           a.error_detail, a.created_at, a.claimed_at, a.ended_at, a.not_before, a.worker, a.submission_id, a.reassesses,
           r.prompt AS policy_text
    FROM assessment a JOIN policy_revision r ON r.id = a.policy_revision_id WHERE a.id = :id
""")
_ATTEMPTS = text("SELECT * FROM attempt WHERE assessment_id = :id ORDER BY attempt")
_VERDICT = text("SELECT * FROM verdict WHERE assessment_id = :id")

_RELATED = text("""
    SELECT related.relation, a.id, a.state, r.policy || '@' || r.revision AS policy
    FROM (
        SELECT 'judges again' AS relation, reassesses AS id FROM assessment WHERE id = :id AND reassesses IS NOT NULL
        UNION ALL SELECT 'judged again by', id FROM assessment WHERE reassesses = :id
        UNION ALL SELECT 'has the verdict about the same pixels of', reused_from
            FROM verdict WHERE assessment_id = :id AND reused_from IS NOT NULL
    ) AS related
    JOIN assessment a ON a.id = related.id JOIN policy_revision r ON r.id = a.policy_revision_id
    ORDER BY a.id
""")


def explanation(engine: Engine, id_: UUID) -> Row | None:
    """One assessment with its attempts, its verdict and what it is related to. None where there is no such id."""
    rows = _all(engine, _ONE, id_)
    if not rows:
        return None
    verdict = _all(engine, _VERDICT, id_)
    return rows[0] | {
        "attempts": _all(engine, _ATTEMPTS, id_),
        "verdict": verdict[0] if verdict else None,
        "related": _all(engine, _RELATED, id_),
    }


def _all(engine: Engine, statement: Any, id_: UUID) -> list[Row]:
    with autocommit(engine) as connection:
        return [dict(row) for row in connection.execute(statement, {"id": id_}).mappings()]

"""Reads the state of one assessment, for whoever asks often: one statement, on primary keys."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Engine, text

from moderation.assessment import State
from moderation.ledger.engine import autocommit

Row = dict[str, Any]

_STANDING = text("""
    SELECT a.id, a.uri, r.policy || '@' || r.revision AS policy, a.state, a.key, a.batch, a.tenant, a.priority,
           a.metadata, a.attempt AS attempts, a.created_at, a.ended_at, a.error_code, a.error_detail,
           v.rating, v.category, v.rationale, v.rationale_truncated, v.needs_review, v.p_unsafe,
           v.p_unsafe_calibrated, v.judge, v.model, v.recorded_at, v.views_differ, v.review_reasons
    FROM assessment a JOIN policy_revision r ON r.id = a.policy_revision_id
    LEFT JOIN verdict v ON v.assessment_id = a.id
    WHERE a.id = :id
""")
_IS_THERE = text("SELECT EXISTS (SELECT FROM assessment WHERE id = :id)")

_STATES = text("""
    SELECT id, state, cleared_at IS NOT NULL AS cleared FROM assessment WHERE id = ANY(CAST(:ids AS uuid[]))
""")


@dataclass(frozen=True, slots=True)
class AssessmentStatus:
    """cleared: retention took its URI away, so that it cannot be fetched any more."""

    state: State
    cleared: bool


def assessment_status(engine: Engine, id_: UUID) -> Row | None:
    """Its state, its verdict's fields (None until there is one), its last error. None where there is no such id."""
    with autocommit(engine) as connection:
        row = connection.execute(_STANDING, {"id": id_}).mappings().first()
        return None if row is None else dict(row)


def states(engine: Engine, ids: Sequence[UUID]) -> dict[UUID, AssessmentStatus]:
    """How those of these that there are stand."""
    with autocommit(engine) as connection:
        rows = connection.execute(_STATES, {"ids": list(ids)}).all()
    return {row.id: AssessmentStatus(State(row.state), row.cleared) for row in rows}


def is_there(engine: Engine, id_: UUID) -> bool:
    """Whether this ledger knows the assessment."""
    with autocommit(engine) as connection:
        return bool(connection.execute(_IS_THERE, {"id": id_}).scalar_one())

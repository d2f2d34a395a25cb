"""Legal holds: what retention may not clear, on whose word and why. A removed hold stays listed."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Engine, text

from moderation.errors import InvalidSubmission
from moderation.ledger.engine import autocommit, transaction

# Advisory lock: pages of a retention and changes of a hold take turns. Once `add_hold` has returned, nothing that it
# holds is cleared any more.
_LOCK = 7_265_007
_LOCK_HOLDS = text("SELECT pg_advisory_xact_lock(:lock)")

# Of a row `a` of assessment.
HELD = """
    EXISTS (SELECT FROM legal_hold h WHERE h.removed_at IS NULL AND (h.assessment_id = a.id OR h.batch = a.batch))
"""

_ADD = text("""
    INSERT INTO legal_hold (batch, assessment_id, reason, added_by)
    SELECT :batch, CAST(:assessment_id AS uuid), :reason, :by
    WHERE CAST(:batch AS text) IS NOT NULL OR EXISTS (SELECT FROM assessment WHERE id = CAST(:assessment_id AS uuid))
    ON CONFLICT DO NOTHING RETURNING id
""")
_STANDS = text("""
    SELECT count(*) FROM legal_hold WHERE removed_at IS NULL
        AND (batch = :batch OR assessment_id = CAST(:assessment_id AS uuid))
""")
_REMOVE = text("""
    UPDATE legal_hold SET removed_at = now(), removed_by = :by
    WHERE removed_at IS NULL AND (batch = :batch OR assessment_id = CAST(:assessment_id AS uuid))
    RETURNING id
""")
_LIST = text("""
    SELECT id, batch, assessment_id, reason, added_by, added_at, removed_by, removed_at FROM legal_hold
    WHERE :removed OR removed_at IS NULL ORDER BY id
""")


@dataclass(frozen=True, slots=True)
class HoldTarget:
    """What a hold is about: a batch, or one assessment."""

    batch: str | None = None
    assessment_id: UUID | None = None

    def __post_init__(self) -> None:
        if (self.batch is None) == (self.assessment_id is None):
            raise InvalidSubmission("a hold is about one batch or one assessment")


@dataclass(frozen=True, slots=True)
class Hold:
    """A hold as it is listed."""

    id: int
    batch: str | None
    assessment_id: UUID | None
    reason: str
    added_by: str
    added_at: datetime
    removed_by: str | None
    removed_at: datetime | None


def add_hold(engine: Engine, held: HoldTarget, *, reason: str, by: str) -> bool:
    """Clear nothing of it from now on; False where it is held already. A batch need not exist yet.

    Waits for the batch of a retention that is running. Raises InvalidSubmission for an unknown assessment.
    """
    values = _values(held)
    with transaction(engine) as connection:
        lock_holds(connection)
        if connection.execute(_ADD, values | {"reason": reason, "by": by}).first():
            return True
        if not connection.execute(_STANDS, values).scalar_one():
            raise InvalidSubmission(f"no assessment {held.assessment_id}")
        return False


def remove_hold(engine: Engine, held: HoldTarget, *, by: str) -> bool:
    """Let it be cleared when its time has come; False where nothing held it."""
    with transaction(engine) as connection:
        lock_holds(connection)
        return connection.execute(_REMOVE, _values(held) | {"by": by}).first() is not None


def holds(engine: Engine, *, removed: bool = False) -> list[Hold]:
    """The holds that stand, oldest first; with `removed`, those that stood as well."""
    with autocommit(engine) as connection:
        return [Hold(**row._mapping) for row in connection.execute(_LIST, {"removed": removed})]


def lock_holds(connection: Connection) -> None:
    """No hold changes and nothing else is cleared until this transaction ends."""
    connection.execute(_LOCK_HOLDS, {"lock": _LOCK})


def _values(held: HoldTarget) -> dict[str, Any]:
    return {"batch": held.batch, "assessment_id": held.assessment_id}

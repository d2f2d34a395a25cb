"""Legal holds: what retention may not clear, on whose word and why. A removed hold stays listed."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import Connection, Engine, func, text
from sqlmodel import col, select
from sqlmodel.sql.expression import SelectOfScalar

from moderation.errors import InvalidSubmission
from moderation.ledger.engine import session
from moderation.ledger.tables import AssessmentRow, LegalHoldRow

# Advisory lock: pages of a retention and changes of a hold take turns. Once `add_hold` has returned, nothing that it
# holds is cleared any more.
_LOCK = 7_265_007
_LOCK_HOLDS = text("SELECT pg_advisory_xact_lock(:lock)")

# Of a row `a` of assessment.
HELD = """
    EXISTS (SELECT FROM legal_hold h WHERE h.removed_at IS NULL AND (h.assessment_id = a.id OR h.batch = a.batch))
"""


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
    with session(engine) as rows:
        lock_holds(rows.connection())
        if rows.exec(_standing(held)).first() is not None:
            return False
        if held.assessment_id is not None and not rows.exec(_known(held.assessment_id)).first():
            raise InvalidSubmission(f"no assessment {held.assessment_id}")
        hold = LegalHoldRow(batch=held.batch, assessment_id=held.assessment_id, reason=reason, added_by=by)
        rows.add(hold)
        return True


def remove_hold(engine: Engine, held: HoldTarget, *, by: str) -> bool:
    """Let it be cleared when its time has come; False where nothing held it."""
    with session(engine) as rows:
        lock_holds(rows.connection())
        hold = rows.exec(_standing(held)).first()
        if hold is None:
            return False
        now = rows.exec(select(func.now())).one()  # Postgres' clock, as added_at
        hold.removed_at, hold.removed_by = now, by
        return True


def holds(engine: Engine, *, removed: bool = False) -> list[Hold]:
    """The holds that stand, oldest first; with `removed`, those that stood as well."""
    with session(engine) as rows:
        wanted = select(LegalHoldRow).order_by(col(LegalHoldRow.id))
        if not removed:
            wanted = wanted.where(col(LegalHoldRow.removed_at).is_(None))
        return [Hold(**row.model_dump()) for row in rows.exec(wanted)]


def lock_holds(connection: Connection) -> None:
    """No hold changes and nothing else is cleared until this transaction ends."""
    connection.execute(_LOCK_HOLDS, {"lock": _LOCK})


def _standing(held: HoldTarget) -> SelectOfScalar[LegalHoldRow]:
    of_it = (
        col(LegalHoldRow.assessment_id) == held.assessment_id
        if held.batch is None
        else col(LegalHoldRow.batch) == held.batch
    )
    return select(LegalHoldRow).where(col(LegalHoldRow.removed_at).is_(None), of_it)


def _known(assessment_id: UUID) -> SelectOfScalar[UUID]:
    return select(AssessmentRow.id).where(col(AssessmentRow.id) == assessment_id)

"""Pauses and caps: what may not be claimed now, and how much of a batch or tenant may run at once."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from sqlalchemy import Engine, TextClause, text

from moderation.ledger.engine import autocommit


class Scope(StrEnum):
    """What a pause or a cap is about."""

    EVERYTHING = "everything"
    BATCH = "batch"
    POLICY = "policy"
    TENANT = "tenant"


# Asked at each claim, so a pause holds from its commit on; the table has a handful of rows. For an assessment `a`.
IS_PAUSED = """
    EXISTS (
        SELECT FROM pause p WHERE p.scope = 'everything' OR (p.scope = 'batch' AND p.name = a.batch)
            OR (p.scope = 'policy' AND p.name = a.policy) OR (p.scope = 'tenant' AND p.name = a.tenant)
    )
"""
# Such rows are rung by the relay alone, which counts; a producer does not ring them.
IS_CAPPED = """
    EXISTS (
        SELECT FROM cap c WHERE (c.scope = 'batch' AND c.name = a.batch) OR (c.scope = 'tenant' AND c.name = a.tenant)
    )
"""

_PAUSE = text("""
    INSERT INTO pause (scope, name, reason, paused_by) VALUES (:scope, :name, :reason, :by)
    ON CONFLICT (scope, name) DO NOTHING RETURNING scope
""")
_RESUME = text("DELETE FROM pause WHERE scope = :scope AND name = :name RETURNING scope")
_PAUSES = text("SELECT scope, name, reason, paused_by, paused_at FROM pause ORDER BY paused_at, scope, name")

_CAP = text("""
    INSERT INTO cap (scope, name, in_hand, set_by) VALUES (:scope, :name, :in_hand, :by)
    ON CONFLICT (scope, name) DO UPDATE SET in_hand = excluded.in_hand, set_by = excluded.set_by, set_at = now()
""")
_UNCAP = text("DELETE FROM cap WHERE scope = :scope AND name = :name RETURNING scope")
_CAPS = text("SELECT scope, name, in_hand, set_by, set_at FROM cap ORDER BY scope, name")


@dataclass(frozen=True, slots=True)
class Pause:
    """name: of the batch, policy or tenant; '' for everything."""

    scope: Scope
    name: str
    reason: str
    paused_by: str
    paused_at: datetime


@dataclass(frozen=True, slots=True)
class Cap:
    """in_hand: how many of the batch or tenant may be rung or running at once."""

    scope: Scope
    name: str
    in_hand: int
    set_by: str
    set_at: datetime


def pause(engine: Engine, scope: Scope, name: str = "", *, reason: str = "", by: str = "") -> bool:
    """Claim nothing more of this from now on. What runs may finish. False where it was paused already."""
    values = {"scope": scope.value, "name": name, "reason": reason, "by": by}
    return _changed(engine, _PAUSE, values)


def resume(engine: Engine, scope: Scope, name: str = "") -> bool:
    """End a pause; what waits is rung by the next sweep. False where there was none."""
    return _changed(engine, _RESUME, {"scope": scope.value, "name": name})


def pauses(engine: Engine) -> list[Pause]:
    """All that is paused, oldest first."""
    with autocommit(engine) as connection:
        rows = connection.execute(_PAUSES).mappings()
        return [Pause(**dict(row) | {"scope": Scope(row["scope"])}) for row in rows]


def cap(engine: Engine, scope: Scope, name: str, in_hand: int, *, by: str = "") -> None:
    """Let no more than in_hand (at least 1) of this batch or tenant be under way at once.

    What was rung or claimed before stays so; the number is reached as it ends.
    """
    values = {"scope": scope.value, "name": name, "in_hand": in_hand, "by": by}
    with autocommit(engine) as connection:
        connection.execute(_CAP, values)


def uncap(engine: Engine, scope: Scope, name: str) -> bool:
    """Lift a cap. False where there was none."""
    return _changed(engine, _UNCAP, {"scope": scope.value, "name": name})


def caps(engine: Engine) -> Sequence[Cap]:
    """All caps, by scope and name."""
    with autocommit(engine) as connection:
        rows = connection.execute(_CAPS).mappings()
        return [Cap(**dict(row) | {"scope": Scope(row["scope"])}) for row in rows]


def _changed(engine: Engine, statement: TextClause, values: dict[str, str]) -> bool:
    with autocommit(engine) as connection:
        return connection.execute(statement, values).first() is not None

"""Counts that cost the same at a thousand rows and at a hundred million.

Triggers append what each statement changes to `tally_change`; the sweeper adds up what is older than a minute into
`tally`. A count is the sum of both, exact at each commit, and the last minute's changes are the pace.
"""

from dataclasses import dataclass

from sqlalchemy import Connection, Engine, text

from moderation.assessment import State
from moderation.ledger.engine import autocommit

# An empty name stands for rows without one; NULL, as a parameter, for all.
_MEANT = """(CAST(:batch AS text) IS NULL OR batch = :batch)
    AND (CAST(:tenant AS text) IS NULL OR tenant = :tenant)"""

_COUNTS = text(f"""
    SELECT state, sum(n)::bigint AS n FROM (
        SELECT state, n FROM tally WHERE {_MEANT} UNION ALL SELECT state, n FROM tally_change WHERE {_MEANT}
    ) AS counted
    GROUP BY state HAVING sum(n) <> 0
""")

_QUEUED = text("""
    SELECT coalesce(sum(n), 0)::bigint FROM (
        SELECT n FROM tally WHERE state = 'queued' UNION ALL SELECT n FROM tally_change WHERE state = 'queued'
    ) AS counted
""")

_PACE = text(f"""
    SELECT coalesce(sum(n), 0) / 60.0 AS per_s FROM tally_change
    WHERE state IN ('done', 'failed') AND n > 0 AND at > now() - interval '60 seconds' AND {_MEANT}
""")

# More than a minute, so that the pace has its minute whole.
_FOLD = text("""
    WITH old AS (
        DELETE FROM tally_change WHERE at < now() - interval '65 seconds' RETURNING batch, tenant, state, n
    )
    INSERT INTO tally AS t (batch, tenant, state, n)
    SELECT batch, tenant, state, sum(n) AS n FROM old GROUP BY batch, tenant, state HAVING sum(n) <> 0
    ON CONFLICT (batch, tenant, state) DO UPDATE SET n = t.n + excluded.n
""")
_FORGET = text("DELETE FROM tally WHERE n = 0")


@dataclass(frozen=True, slots=True)
class Progress:
    """How far it is. states: how many are in each, also where that is none. per_s: ended, over the last minute."""

    states: dict[str, int]
    per_s: float

    @property
    def open(self) -> int:
        return self.states[State.QUEUED] + self.states[State.RUNNING]

    @property
    def left_s(self) -> int | None:
        """Seconds until nothing is open, at this pace; None where it is not known."""
        return round(self.open / self.per_s) if self.per_s and self.open else None


def progress(engine: Engine, *, batch: str | None = None, tenant: str | None = None) -> Progress:
    """Of a batch, of a tenant, of what is of both, or of everything."""
    by_state = counts(engine, batch=batch, tenant=tenant)
    states = {state.value: by_state.get(state.value, 0) for state in State}
    return Progress(states=states, per_s=pace(engine, batch=batch, tenant=tenant))


def counts(engine: Engine, *, batch: str | None = None, tenant: str | None = None) -> dict[str, int]:
    """How many assessments are in each state; states with none are left out."""
    with autocommit(engine) as connection:
        rows = connection.execute(_COUNTS, {"batch": batch, "tenant": tenant})
        return {row.state: row.n for row in rows}


def queued(engine: Engine) -> int:
    """How many assessments wait, in all."""
    with autocommit(engine) as connection:
        return int(connection.execute(_QUEUED).scalar_one())


def pace(engine: Engine, *, batch: str | None = None, tenant: str | None = None) -> float:
    """Assessments ended per second, over the last minute."""
    with autocommit(engine) as connection:
        return float(connection.execute(_PACE, {"batch": batch, "tenant": tenant}).scalar_one())


def fold(connection: Connection) -> None:
    """Add up what is older than a minute. For the sweeper, under its lock."""
    connection.execute(_FOLD)
    connection.execute(_FORGET)

"""Sweep: free the rows of dead workers, and ring every row that is due. One sweeper at a time, by advisory lock."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import Connection, Engine, text

from moderation.ledger.engine import reaching_postgres

_LOCK = 7_265_002  # advisory lock, held for a transaction: a dead sweeper cannot keep it
_TAKE = text("SELECT pg_try_advisory_xact_lock(:lock)")

# A death is counted in `crashes`, so it is not charged as well.
_EXPIRE = text("""
    WITH dead AS (
        SELECT id FROM assessment WHERE state = 'running' AND lease_until < now()
        ORDER BY lease_until LIMIT :limit FOR UPDATE SKIP LOCKED
    ), freed AS (
        UPDATE assessment a SET
            state = CASE WHEN a.crashes + 1 >= :max_crashes THEN 'failed' ELSE 'queued' END,
            ring_at = CASE WHEN a.crashes + 1 >= :max_crashes THEN NULL ELSE a.created_at END,
            ended_at = CASE WHEN a.crashes + 1 >= :max_crashes THEN now() END,
            error_code = CASE WHEN a.crashes + 1 >= :max_crashes THEN 'poison' ELSE 'worker_lost' END,
            error_detail = 'the lease of ' || coalesce(a.worker, 'a worker') || ' ran out',
            crashes = a.crashes + 1, charged = greatest(a.charged - 1, 0), lease_until = NULL
        FROM dead WHERE a.id = dead.id
        RETURNING a.id, a.attempt, a.worker, a.claimed_at, a.error_code, a.error_detail
    )
    INSERT INTO attempt (assessment_id, attempt, outcome, worker, claimed_at, error_code, error_detail)
    SELECT id, attempt, 'crashed', worker, claimed_at, error_code, error_detail FROM freed
    RETURNING assessment_id
""")

_DUE = text("""
    WITH due AS (
        SELECT id FROM assessment
        WHERE state = 'queued' AND ring_at <= now() + make_interval(secs => :early_s)
            AND (not_before IS NULL OR not_before <= now())
        ORDER BY priority, ring_at LIMIT :limit FOR UPDATE SKIP LOCKED
    )
    UPDATE assessment a SET ring_at = now() + make_interval(secs => :ring_again_s)
    FROM due, policy_revision r
    WHERE a.id = due.id AND r.id = a.policy_revision_id
    RETURNING a.id, a.uri, r.policy || '@' || r.revision AS policy, a.priority, a.crashes
""")

_SIGN = text("""
    INSERT INTO sweep AS s (id, swept_at, worker, rung, expired) VALUES (1, now(), :worker, 0, :expired)
    ON CONFLICT (id) DO UPDATE SET
        swept_at = now(), worker = excluded.worker, expired = s.expired + excluded.expired
""")

_COUNT_RUNG = text("UPDATE sweep SET rung = rung + :rung WHERE id = 1")


@dataclass(frozen=True, slots=True)
class Due:
    """A row that the doorbell is to ring."""

    id: UUID
    uri: str
    policy: str  # id@revision
    priority: int
    crashes: int


def expire(engine: Engine, *, worker: str, max_crashes: int, limit: int = 1000) -> list[UUID] | None:
    """Free rows whose lease ran out and sign the sweep. None where another sweeper is at it."""
    with (
        reaching_postgres(),
        engine.execution_options(isolation_level="READ COMMITTED").begin() as connection,
    ):
        if not _taken(connection):
            return None
        freed = list(connection.execute(_EXPIRE, {"limit": limit, "max_crashes": max_crashes}).scalars())
        connection.execute(_SIGN, {"worker": worker, "expired": len(freed)})
        return freed


def ring_due(
    engine: Engine,
    ring: Callable[[Sequence[Due]], None],
    *,
    limit: int,
    ring_again_s: float,
    early_s: float = 0,
) -> int:
    """Hand up to `limit` due rows to `ring`, most urgent first, and say how many.

    early_s: how long before its time a row that was rung may be rung again (the queue stands empty).
    If `ring` raises, nothing is noted and they stay due; if the commit fails, they ring twice, which is harmless.
    """
    values = {"limit": limit, "ring_again_s": ring_again_s, "early_s": early_s}
    with (
        reaching_postgres(),
        engine.execution_options(isolation_level="READ COMMITTED").begin() as connection,
    ):
        if not _taken(connection):
            return 0
        due = [Due(**row._mapping) for row in connection.execute(_DUE, values)]
        if due:
            due.sort(key=lambda row: (row.priority, row.id))
            ring(due)
            connection.execute(_COUNT_RUNG, {"rung": len(due)})
        return len(due)


def _taken(connection: Connection) -> bool:
    return bool(connection.execute(_TAKE, {"lock": _LOCK}).scalar_one())

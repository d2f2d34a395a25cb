"""Sweep: free the rows of dead workers, and ring every row that is due. One sweeper at a time, by advisory lock."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import Connection, Engine, text

from moderation.ledger.engine import reaching_postgres, transaction

_LOCK = 7_265_002  # advisory lock, held for a transaction: a dead sweeper cannot keep it
# A sweeper that froze, or whose machine is gone, holds lock and rows no longer than this; waiting for Redis may take a
# few seconds, and a sweep that is cut short only rings twice.
_TAKE = text("""
    SELECT pg_try_advisory_xact_lock(:lock), set_config('idle_in_transaction_session_timeout', '10s', true)
""")

# Nobody swept for a while, though this worker was there to: Postgres was away, or the machine slept, and nobody could
# renew a lease either. So none that ran out says that its worker died, until it had the time to beat again.
_SPARE = text("""
    UPDATE assessment SET lease_until = now() + make_interval(secs => :spare_s)
    WHERE id IN (
        SELECT a.id FROM sweep s, assessment a
        WHERE a.state = 'running' AND a.lease_until < now() + make_interval(secs => :spare_s)
            AND s.swept_at < now() - make_interval(secs => :spare_s)
            AND s.swept_at > now() - make_interval(secs => :awake_s)
        FOR UPDATE OF a SKIP LOCKED
    )
""")

# A death is counted in `crashes`, so it is not charged as well.
_EXPIRE = text("""
    WITH dead AS (
        SELECT id FROM assessment WHERE state = 'running' AND lease_until < now()
        ORDER BY lease_until LIMIT :limit FOR UPDATE SKIP LOCKED
    ), freed AS (
        UPDATE assessment a SET
            state = CASE WHEN a.crashes + 1 >= :max_crashes THEN 'failed' ELSE 'queued' END,
            ring_at = CASE WHEN a.crashes + 1 < :max_crashes THEN timestamptz 'epoch' END,
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

# What was freed, given back or lost on the way has the epoch for its time: it goes first, and past a full queue.
_DUE = text("""
    WITH due AS (
        SELECT id FROM assessment
        WHERE ring_at <= CASE WHEN :only_first THEN timestamptz 'epoch' ELSE now() END
        ORDER BY priority, ring_at LIMIT :limit FOR UPDATE SKIP LOCKED
    )
    UPDATE assessment a SET ring_at = NULL, rung_at = now()
    FROM due, policy_revision r
    WHERE a.id = due.id AND r.id = a.policy_revision_id
    RETURNING a.id, a.uri, r.policy || '@' || r.revision AS policy, a.priority, a.crashes, a.submission_id
""")

_OVERDUE = text("""
    SELECT EXISTS (SELECT FROM assessment WHERE rung_at < now() - make_interval(secs => :after_s))
""")

# Siblings wait on one message together.
_LOST = text("""
    WITH waiting AS (
        SELECT a.id, a.submission_id FROM unnest(CAST(:waiting AS uuid[])) AS message (id) JOIN assessment a USING (id)
    ), lost AS (
        SELECT a.id FROM assessment a
        WHERE a.rung_at < now() - make_interval(secs => :after_s)
            AND NOT EXISTS (SELECT FROM waiting w WHERE w.id = a.id)
            AND NOT EXISTS (SELECT FROM waiting w WHERE w.submission_id = a.submission_id)
        ORDER BY a.rung_at LIMIT :limit FOR UPDATE SKIP LOCKED
    )
    UPDATE assessment a SET ring_at = timestamptz 'epoch', rung_at = NULL
    FROM lost WHERE a.id = lost.id AND a.rung_at IS NOT NULL
    RETURNING a.id
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
    submission_id: UUID | None = None


def expire(
    engine: Engine,
    *,
    worker: str,
    max_crashes: int,
    awake_s: float = 0.0,
    spare_s: float = 0.0,
    limit: int = 1000,
) -> list[UUID] | None:
    """Free rows whose lease ran out and sign the sweep. None where another sweeper is at it.

    awake_s: how long this worker has been there to sweep. Where nobody did for the last spare_s of that, leases get
    spare_s more: enough for a live worker to renew them.
    """
    with transaction(engine) as connection:
        if not _taken(connection):
            return None
        connection.execute(_SPARE, {"awake_s": awake_s, "spare_s": spare_s})
        freed = list(connection.execute(_EXPIRE, {"limit": limit, "max_crashes": max_crashes}).scalars())
        connection.execute(_SIGN, {"worker": worker, "expired": len(freed)})
        return freed


def ring_due(
    engine: Engine, ring: Callable[[Sequence[Due]], object], *, limit: int, only_first: bool = False
) -> int:
    """Hand up to `limit` due rows to `ring`, most urgent first, and say how many.

    only_first: none but those that were freed, given back or lost.
    If `ring` raises, nothing is noted and they stay due; if the commit fails, they ring twice, which is harmless.
    """
    values = {"limit": limit, "only_first": only_first}
    with transaction(engine) as connection:
        if not _taken(connection):
            return 0
        due = [Due(**row._mapping) for row in connection.execute(_DUE, values)]
        if due:
            due.sort(key=lambda row: (row.priority, row.id))
            ring(due)
            connection.execute(_COUNT_RUNG, {"rung": len(due)})
        return len(due)


def any_overdue(engine: Engine, *, after_s: float) -> bool:
    """Whether a row was rung more than after_s seconds ago and is not claimed yet."""
    with reaching_postgres(), engine.connect() as connection:
        return bool(connection.execute(_OVERDUE, {"after_s": after_s}).scalar())


def find_lost(engine: Engine, waiting: Sequence[UUID], *, after_s: float, limit: int = 1000) -> list[UUID]:
    """Rows rung more than after_s seconds ago whose message is not among those waiting: they are due again, first.

    waiting: the ids of all messages in the queue, read after the rows were found overdue.
    """
    values = {"waiting": list(waiting), "after_s": after_s, "limit": limit}
    with transaction(engine) as connection:
        return list(connection.execute(_LOST, values).scalars()) if _taken(connection) else []


def _taken(connection: Connection) -> bool:
    return bool(connection.execute(_TAKE, {"lock": _LOCK}).scalar_one())

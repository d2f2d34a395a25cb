"""Sweep: frees the rows of dead workers, and finds rows whose message was lost. One sweeper at a time, by advisory lock."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import Connection, Engine, text

from moderation.ledger.counters import fold
from moderation.ledger.engine import autocommit, transaction
from moderation.ledger.workers import FORGET

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

_FRESH = text("""
    SELECT count(*) FROM sweep WHERE worker <> :worker AND swept_at > now() - make_interval(secs => :within_s)
""")

_SIGN = text(f"""
    WITH forgotten AS ({FORGET})
    INSERT INTO sweep AS s (id, swept_at, worker, rung, expired) VALUES (1, now(), :worker, 0, :expired)
    ON CONFLICT (id) DO UPDATE SET
        swept_at = now(), worker = excluded.worker, expired = s.expired + excluded.expired
""")


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

    Workers not heard of for a day are forgotten with it.
    awake_s: how long this worker has been there to sweep. Where nobody did for the last spare_s of that, leases get
    spare_s more: enough for a live worker to renew them.
    """
    with transaction(engine) as connection:
        if not take_the_sweep(connection):
            return None
        connection.execute(_SPARE, {"awake_s": awake_s, "spare_s": spare_s})
        freed = list(connection.execute(_EXPIRE, {"limit": limit, "max_crashes": max_crashes}).scalars())
        connection.execute(_SIGN, {"worker": worker, "expired": len(freed)})
        fold(connection)
        return freed


def another_swept(engine: Engine, *, worker: str, within_s: float) -> bool:
    """Whether another worker swept so lately that this one need not: sixteen sweepers would cost sixteen times as much."""
    with autocommit(engine) as connection:
        return bool(connection.execute(_FRESH, {"worker": worker, "within_s": within_s}).scalar_one())


def any_overdue(engine: Engine, *, after_s: float) -> bool:
    """Whether a row was rung more than after_s seconds ago and is not claimed yet."""
    with autocommit(engine) as connection:
        return bool(connection.execute(_OVERDUE, {"after_s": after_s}).scalar())


def find_lost(engine: Engine, waiting: Sequence[UUID], *, after_s: float, limit: int = 1000) -> list[UUID]:
    """Rows rung more than after_s seconds ago whose message is not among those waiting: they are due again, first.

    waiting: the ids of all messages in the queue, read after the rows were found overdue.
    """
    values = {"waiting": list(waiting), "after_s": after_s, "limit": limit}
    with transaction(engine) as connection:
        return list(connection.execute(_LOST, values).scalars()) if take_the_sweep(connection) else []


def take_the_sweep(connection: Connection) -> bool:
    """Whether this transaction is the one that sweeps; until its end nobody else does."""
    return bool(connection.execute(_TAKE, {"lock": _LOCK}).scalar_one())

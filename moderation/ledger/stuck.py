"""Finds and frees what is stuck: rows whose lease ran out, and rows that were rung and never claimed.

A sweeper of any worker mends both within seconds. This is for those who do not want to wait for one, or want to see
what a missing sweeper leaves behind.
"""

from dataclasses import dataclass

from sqlalchemy import Engine, text

from moderation.ledger.engine import autocommit
from moderation.ledger.sweep import expire

_COUNT = text("""
    SELECT count(*) FILTER (WHERE state = 'running' AND lease_until < now()) AS leases,
        count(*) FILTER (WHERE rung_at < now() - make_interval(secs => :after_s)) AS rings
    FROM assessment WHERE (state = 'running' AND lease_until < now()) OR rung_at IS NOT NULL
""")

_DUE_AGAIN = text("""
    UPDATE assessment SET ring_at = timestamptz 'epoch', rung_at = NULL
    WHERE id IN (
        SELECT id FROM assessment WHERE rung_at < now() - make_interval(secs => :after_s)
        ORDER BY rung_at LIMIT :limit FOR UPDATE SKIP LOCKED
    )
    RETURNING id
""")


@dataclass(frozen=True, slots=True)
class Stuck:
    """leases: running though their lease ran out. rings: rung so long ago, and not claimed."""

    leases: int
    rings: int


def count_stuck(engine: Engine, *, after_s: float) -> Stuck:
    """How many rows are stuck now; rings count from after_s seconds on."""
    with autocommit(engine) as connection:
        return Stuck(**connection.execute(_COUNT, {"after_s": after_s}).mappings().one())


def free_stuck(
    engine: Engine, *, after_s: float, max_crashes: int, worker: str, limit: int = 10_000
) -> Stuck:
    """Free and make due again up to `limit` stuck rows of each kind, as a sweep would; what was done.

    A row that was only slow rings twice, which is harmless. Leases stay as they are where a sweeper is at them now.
    """
    leases = expire(engine, worker=worker, max_crashes=max_crashes, limit=limit) or []
    values = {"after_s": after_s, "limit": limit}
    with autocommit(engine) as connection:
        rings = list(connection.execute(_DUE_AGAIN, values).scalars())
    return Stuck(len(leases), len(rings))

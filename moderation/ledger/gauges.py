"""The ledger's gauges. Each statement reads an index or a few rows, except the audit."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine, text

from moderation.ledger import counters, golden, queries, rejected, workers
from moderation.ledger.audit import turn
from moderation.ledger.engine import autocommit, transaction

Row = dict[str, Any]

# Those that wait, by priority: due or put off (ring_at), and rung but not claimed yet (rung_at).
_WAITING = text("""
    SELECT priority, sum(due)::bigint AS due, sum(later)::bigint AS later, sum(rung)::bigint AS rung FROM (
        SELECT priority, count(*) FILTER (WHERE ring_at <= now()) AS due,
               count(*) FILTER (WHERE ring_at > now()) AS later, 0 AS rung
        FROM assessment WHERE ring_at IS NOT NULL GROUP BY priority
        UNION ALL
        SELECT priority, 0, 0, count(*) FROM assessment WHERE rung_at IS NOT NULL GROUP BY priority
    ) AS counted GROUP BY priority
""")

# What was freed or given back has the epoch for its time: it rings within a second, and then counts by that.
_OLDEST = text("""
    SELECT priority, greatest(extract(epoch FROM now() - min(since)), 0)::float AS age_s FROM (
        SELECT p AS priority, (
            SELECT ring_at FROM assessment
            WHERE priority = p AND ring_at > timestamptz 'epoch' AND ring_at <= now() ORDER BY ring_at LIMIT 1
        ) AS since FROM generate_series(0, 2) AS p
        UNION ALL
        SELECT priority, min(rung_at) FROM assessment WHERE rung_at IS NOT NULL GROUP BY priority
    ) AS oldest GROUP BY priority
""")

_FAILURES = text("""
    SELECT error_code AS code, count(*) AS n FROM assessment WHERE state = 'failed' GROUP BY error_code
""")

_RUNNING = text("""
    SELECT count(*) AS running, count(*) FILTER (WHERE lease_until < now()) AS overdue,
           count(DISTINCT worker) AS workers,
           coalesce(extract(epoch FROM now() - min(claimed_at)), 0)::float AS oldest_s
    FROM assessment WHERE state = 'running'
""")

# What keeps the promise, each by its own evidence and not by the word `state`: an open row has a ring or a lease; a
# done one has its verdict; a failed one its code; a cancelled one its end. Reads both tables, in one snapshot.
_AUDIT = text("""
    SELECT count(*) AS accepted,
        count(*) FILTER (WHERE a.state IN ('queued', 'running')
            AND (a.ring_at IS NOT NULL OR a.rung_at IS NOT NULL OR a.lease_until IS NOT NULL)) AS open,
        count(*) FILTER (WHERE a.state = 'done' AND v.assessment_id IS NOT NULL
            OR a.state = 'failed' AND a.error_code IS NOT NULL
            OR a.state = 'cancelled' AND a.ended_at IS NOT NULL) AS terminal,
        count(v.assessment_id) FILTER (WHERE a.state <> 'done') AS stray_verdicts
    FROM assessment a LEFT JOIN verdict v ON v.assessment_id = a.id
""")
_AUDIT_PATIENCE_S = 600.0  # two whole tables: minutes at a hundred million rows


@dataclass(frozen=True, slots=True)
class GaugeQuery:
    """One thing to read. pause_s: for how long its answer serves at least."""

    name: str
    read: Callable[[Engine], Any]
    pause_s: float


def waiting(engine: Engine) -> list[Row]:
    """Queued rows by priority: due, later (their time has not come), rung (a message is under way)."""
    return _all(engine, _WAITING)


def oldest(engine: Engine) -> list[Row]:
    """For how long (age_s, seconds) the oldest queued row of each priority has been due or rung."""
    return _all(engine, _OLDEST)


def failures(engine: Engine) -> list[Row]:
    """Standing failures by code."""
    return _all(engine, _FAILURES)


def running(engine: Engine) -> Row:
    """Claims: how many, with leases that ran out, on how many workers, and the age of the oldest in seconds."""
    return _all(engine, _RUNNING)[0]


def audit(engine: Engine) -> Row:
    """Whether all that was accepted is accounted for: accepted = open + terminal, each by its own evidence.

    stray_verdicts: verdicts of assessments that are not done.
    """
    with transaction(engine, patience_s=_AUDIT_PATIENCE_S) as connection:
        return dict(connection.execute(_AUDIT).mappings().one())


QUICK = (
    GaugeQuery("counts", counters.counts, 5),
    GaugeQuery("waiting", waiting, 5),
    GaugeQuery("oldest", oldest, 5),
    GaugeQuery("running", running, 5),
    GaugeQuery("workers", workers.counts, 5),
    GaugeQuery("failures", failures, 15),
    GaugeQuery("rejected", rejected.rejected_counts, 15),
    GaugeQuery("sweep", queries.last_sweep, 5),
    GaugeQuery("reconciled", turn.places, 15),
    GaugeQuery("golden", golden.recent, 30),
    GaugeQuery("scores", golden.weekly_scores, 600),
)
AUDIT = GaugeQuery("audit", audit, 60)


def _all(engine: Engine, statement: Any) -> list[Row]:
    with autocommit(engine) as connection:
        return [dict(row) for row in connection.execute(statement).mappings()]

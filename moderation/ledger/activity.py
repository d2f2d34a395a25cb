"""Reads who is at work: each worker as it reports itself, what it has in hand, and what it has just done."""

from typing import Any

from sqlalchemy import Engine, text

from moderation.ledger.engine import autocommit
from moderation.ledger.workers import STATE

Row = dict[str, Any]

# The newest verdicts come by the index of their order, so the cost is the same for any number of them. One that is not
# in the workers is shown by what it holds: a worker of the release before.
_WORKERS = text(f"""
    WITH newest AS (
        SELECT assessment_id, attempt, runtime || ' ' || runtime_version AS runtime, recorded_at
        FROM verdict ORDER BY xid DESC, seq DESC LIMIT :newest
    ), answered AS (
        SELECT a.worker, count(*) FILTER (WHERE n.recorded_at > now() - interval '60 seconds') AS last_minute,
            max(n.recorded_at) AS answered_at, (array_agg(n.runtime ORDER BY n.recorded_at DESC))[1] AS runtime
        FROM newest n JOIN attempt a ON a.assessment_id = n.assessment_id AND a.attempt = n.attempt
        WHERE n.recorded_at > now() - interval '10 minutes'
        GROUP BY a.worker
    ), held AS (
        SELECT worker, count(*) AS in_hand, min(claimed_at) AS oldest_at, min(lease_until) < now() AS lease_ran_out
        FROM assessment WHERE state = 'running' GROUP BY worker
    ), registered AS (
        SELECT w.*, w.name AS worker, {STATE} AS state, concat_ws(' ', w.runtime, w.runtime_version) AS runs
        FROM worker w
    )
    SELECT worker, c.state, c.host, c.gpu, c.judge, c.pid, c.version,
        coalesce(nullif(c.runs, ''), a.runtime) AS runtime, c.runtime_state, c.model, coalesce(c.waits, '[]') AS waits,
        coalesce(h.in_hand, 0) AS in_hand, c.in_hand_limit, c.in_flight, c.in_flight_limit,
        coalesce(a.last_minute, 0) AS last_minute,
        extract(epoch FROM now() - h.oldest_at)::float AS oldest_s,
        extract(epoch FROM now() - a.answered_at)::float AS answered_s,
        coalesce(h.lease_ran_out, false) AS lease_ran_out,
        extract(epoch FROM now() - c.seen_at)::float AS seen_s, extract(epoch FROM now() - c.started_at)::float AS up_s
    FROM held h FULL JOIN registered c USING (worker) LEFT JOIN answered a USING (worker)
    ORDER BY array_position(ARRAY['waiting', 'silent', 'ready'], c.state), worker
""")
_NEWEST = 10_000  # verdicts: more than any ledger records in a few seconds, and 20 ms to look at


def workers(engine: Engine) -> list[Row]:
    """Workers that say that they are there, or that hold something; the unwell first.

    state: ready, waiting (for what `waits` says), silent (not heard of in time: it died, or cannot reach Postgres), or
    None for one that does not say. seen_s: seconds since it was heard; up_s: since it started.
    in_hand: claims that it holds; in_flight: images that its judge was asked about when it was last heard;
    last_minute: verdicts, of the newest 10,000; oldest_s, answered_s: seconds since the oldest claim in hand and the
    last verdict, if within ten minutes; lease_ran_out: the sweeper will free what it holds.
    """
    with autocommit(engine) as connection:
        return [dict(row) for row in connection.execute(_WORKERS, {"newest": _NEWEST}).mappings()]

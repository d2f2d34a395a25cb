"""Who is at work: workers, what they have in hand, and what they have just done."""

from typing import Any

from sqlalchemy import Engine, text

from moderation.ledger.engine import reaching_postgres

Row = dict[str, Any]

# The newest verdicts come by the index of their order, so the cost is the same for any number of them. A worker that
# recorded none among those and holds nothing is not shown: it has nothing to do, or is not there.
_WORKERS = text("""
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
    )
    SELECT worker, coalesce(h.in_hand, 0) AS in_hand, coalesce(a.last_minute, 0) AS last_minute, a.runtime,
        extract(epoch FROM now() - h.oldest_at)::float AS oldest_s,
        extract(epoch FROM now() - a.answered_at)::float AS answered_s, coalesce(h.lease_ran_out, false) AS lease_ran_out
    FROM held h FULL JOIN answered a USING (worker) ORDER BY worker
""")
_NEWEST = 10_000  # verdicts: more than any ledger records in a few seconds, and 20 ms to look at


def workers(engine: Engine) -> list[Row]:
    """Workers with something in hand, or that answered within ten minutes.

    in_hand; last_minute: verdicts, of the newest 10,000; oldest_s, answered_s: seconds since the oldest claim in hand
    and the last verdict; lease_ran_out: it was not heard of in time, and the sweeper will free what it holds.
    """
    with reaching_postgres(), engine.connect() as connection:
        return [dict(row) for row in connection.execute(_WORKERS, {"newest": _NEWEST}).mappings()]

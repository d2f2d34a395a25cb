"""What the scaler sees leaves out what is paused: the age heeds every pause, and the number a paused policy too.

Replaces a view, whose columns and grants stay. Works while the previous release runs: only the scaler reads it.
"""

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

# As in moderation.ledger.tables: the index assessment_lanes is on this expression.
LANE = (
    "hashtextextended((((COALESCE(tenant, ''::text) || ' '::text) || COALESCE(batch, ''::text)) || ' '::text)"
    " || policy, 0)"
)


def _is_paused(what: str) -> str:
    return f"""EXISTS (
        SELECT FROM pause p WHERE (p.scope = 'batch' AND p.name = {what}.batch)
            OR (p.scope = 'policy' AND p.name = {what}.policy) OR (p.scope = 'tenant' AND p.name = {what}.tenant)
    )"""


_COUNTED = """
    SELECT greatest(coalesce(sum(n), 0), 0)::bigint FROM (
        SELECT batch, tenant, state, n FROM tally UNION ALL SELECT batch, tenant, state, n FROM tally_change
    ) AS counted
    WHERE state IN ('queued', 'running') AND NOT EXISTS (
        SELECT FROM pause p
        WHERE (p.scope = 'batch' AND p.name = counted.batch) OR (p.scope = 'tenant' AND p.name = counted.tenant)
    )
"""
_OLDEST = """
    SELECT coalesce(greatest(extract(epoch FROM now() - min(since)), 0), 0)::bigint FROM (
        SELECT (
            SELECT ring_at FROM assessment
            WHERE priority = p AND ring_at > timestamptz 'epoch' AND ring_at <= now() ORDER BY ring_at LIMIT 1
        ) AS since FROM generate_series(0, 1) AS p
    ) AS oldest
"""

# Nothing paused, or a batch or tenant: counts as before, from the tally, at any size. The tally does not know policies:
# while one is paused, what waits is counted lane by lane, to 300,000 (18 workers for five minutes, about a second every
# 15 s; where that is too few, the age asks for more), and the few that are rung or running one by one. The age takes
# two index steps a lane; ten thousand lanes are looked at, so that a batch for each user costs a moment, not a minute.
HEEDING = f"""
CREATE OR REPLACE VIEW open_work AS
WITH RECURSIVE lane AS (
    (SELECT priority, {LANE} AS lane, tenant, batch, policy FROM assessment
     WHERE ring_at IS NOT NULL ORDER BY priority, {LANE}, ring_at LIMIT 1)
    UNION ALL
    SELECT n.* FROM lane AS l CROSS JOIN LATERAL (
        SELECT priority, {LANE}, tenant, batch, policy FROM assessment
        WHERE ring_at IS NOT NULL AND (priority, {LANE}) > (l.priority, l.lane)
        ORDER BY priority, {LANE}, ring_at LIMIT 1
    ) AS n
), waiting AS (
    SELECT priority, lane FROM (SELECT * FROM lane LIMIT 10000) AS l WHERE NOT {_is_paused("l")}
)
SELECT
    CASE
        WHEN EXISTS (SELECT FROM pause WHERE scope = 'everything') THEN 0
        WHEN NOT EXISTS (SELECT FROM pause WHERE scope = 'policy') THEN ({_COUNTED})
        ELSE (
            SELECT count(*) FROM (
                SELECT FROM waiting AS w JOIN LATERAL (
                    SELECT FROM assessment
                    WHERE priority = w.priority AND {LANE} = w.lane AND ring_at IS NOT NULL LIMIT 300000
                ) AS a ON true
                LIMIT 300000
            ) AS waits
        ) + (SELECT count(*) FROM assessment a WHERE a.rung_at IS NOT NULL AND NOT {_is_paused("a")})
          + (SELECT count(*) FROM assessment a WHERE a.state = 'running' AND NOT {_is_paused("a")})
    END AS open,
    CASE
        WHEN EXISTS (SELECT FROM pause WHERE scope = 'everything') THEN 0
        WHEN NOT EXISTS (SELECT FROM pause) THEN ({_OLDEST})
        ELSE (
            SELECT coalesce(greatest(extract(epoch FROM now() - min(a.ring_at)), 0), 0)::bigint
            FROM waiting AS w CROSS JOIN LATERAL (
                SELECT ring_at FROM assessment
                WHERE priority = w.priority AND {LANE} = w.lane
                    AND ring_at > timestamptz 'epoch' AND ring_at <= now()
                ORDER BY ring_at LIMIT 1
            ) AS a
            WHERE w.priority < 2
        )
    END AS age_s
"""

BEFORE = f"""
CREATE OR REPLACE VIEW open_work AS
SELECT
    CASE WHEN EXISTS (SELECT FROM pause WHERE scope = 'everything') THEN 0 ELSE ({_COUNTED}) END AS open,
    CASE WHEN EXISTS (SELECT FROM pause WHERE scope = 'everything') THEN 0 ELSE ({_OLDEST}) END AS age_s
"""


def upgrade() -> None:
    op.execute(HEEDING)


def downgrade() -> None:
    op.execute(BEFORE)

"""Roles for those who connect, and one view for whoever scales workers.

Roles belong to the cluster, not to a database: they are made where they are not there yet, and stay at a downgrade.
Where this user may not make roles it says so and goes on; `vetline doctor` says it too. What each may do is in
`moderation.ledger.roles`, and is granted at the end of each upgrade. Works while the previous release runs: the user
that it connects as loses nothing.
"""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

# Two databases of one cluster that migrate at once may both find a role missing.
ROLES = """
DO $$
DECLARE
    role text;
BEGIN
    FOREACH role IN ARRAY ARRAY['vetline_migrate', 'vetline_producer', 'vetline_worker', 'vetline_consumer',
                                'vetline_watcher', 'vetline_scaler'] LOOP
        IF to_regrole(role) IS NULL THEN
            BEGIN
                EXECUTE format('CREATE ROLE %I NOLOGIN', role);
            EXCEPTION
                WHEN duplicate_object OR unique_violation THEN NULL;
                WHEN insufficient_privilege THEN
                    RAISE WARNING 'vetline: % may not create role %', current_user, role;
            END;
        END IF;
    END LOOP;
END $$
"""

# What is open and not paused as a whole, and for how long the oldest that is due has waited. Counts are by batch and
# tenant, so a paused policy still counts. The age is found by the index, one step a priority.
OPEN_WORK = """
CREATE VIEW open_work AS
SELECT
    CASE WHEN EXISTS (SELECT FROM pause WHERE scope = 'everything') THEN 0 ELSE (
        SELECT greatest(coalesce(sum(n), 0), 0)::bigint FROM (
            SELECT batch, tenant, state, n FROM tally UNION ALL SELECT batch, tenant, state, n FROM tally_change
        ) AS counted
        WHERE state IN ('queued', 'running') AND NOT EXISTS (
            SELECT FROM pause p
            WHERE (p.scope = 'batch' AND p.name = counted.batch) OR (p.scope = 'tenant' AND p.name = counted.tenant)
        )
    ) END AS open,
    CASE WHEN EXISTS (SELECT FROM pause WHERE scope = 'everything') THEN 0 ELSE (
        SELECT coalesce(greatest(extract(epoch FROM now() - min(since)), 0), 0)::bigint FROM (
            SELECT (
                SELECT ring_at FROM assessment
                WHERE priority = p AND ring_at > timestamptz 'epoch' AND ring_at <= now() ORDER BY ring_at LIMIT 1
            ) AS since FROM generate_series(0, 1) AS p
        ) AS oldest
    ) END AS age_s
"""


def upgrade() -> None:
    op.execute(ROLES)
    op.execute(OPEN_WORK)


def downgrade() -> None:
    op.execute("DROP VIEW open_work")

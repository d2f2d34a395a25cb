"""What orders the queue (tenants, pauses, caps, lanes), and counts that cost the same at any size of the ledger.

Works while the previous release runs: it rings by the index that it knows, names no tenant, and heeds no pause; the
triggers count what it does as well. Counting what is there and indexing what is due keep writers out meanwhile: some
seconds for ten million rows. They wait and lose nothing.
"""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

TENANT = "ALTER TABLE assessment ADD COLUMN tenant text"

# A lane: what is of one tenant, batch and policy. Each is found in one step, however long the others are.
LANES = """
CREATE INDEX assessment_lanes ON assessment (
    priority,
    hashtextextended((((COALESCE(tenant, ''::text) || ' '::text) || COALESCE(batch, ''::text)) || ' '::text) || policy, 0),
    ring_at
) WHERE ring_at IS NOT NULL
"""

PAUSE = """
CREATE TABLE pause (
    scope text NOT NULL
        CONSTRAINT pause_scope_known CHECK (scope IN ('everything', 'batch', 'policy', 'tenant')),
    name text NOT NULL,
    reason text NOT NULL,
    paused_by text NOT NULL,
    paused_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT pause_pk PRIMARY KEY (scope, name)
)
"""

CAP = """
CREATE TABLE cap (
    scope text NOT NULL CONSTRAINT cap_scope_known CHECK (scope IN ('batch', 'tenant')),
    name text NOT NULL,
    in_hand integer NOT NULL CONSTRAINT cap_positive CHECK (in_hand > 0),
    set_by text NOT NULL,
    set_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT cap_pk PRIMARY KEY (scope, name)
)
"""

# Counts by batch, tenant and state ('' for none). Changes are appended, so that writers do not queue for one row; the
# sweeper adds up those older than a minute, and the last minute's tell the pace.
TALLY = """
CREATE TABLE tally (
    batch text NOT NULL,
    tenant text NOT NULL,
    state text NOT NULL,
    n bigint NOT NULL,
    CONSTRAINT tally_pk PRIMARY KEY (batch, tenant, state)
);
CREATE TABLE tally_change (
    batch text NOT NULL,
    tenant text NOT NULL,
    state text NOT NULL,
    n integer NOT NULL,
    at timestamptz NOT NULL DEFAULT now()
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000);
CREATE INDEX tally_change_at ON tally_change (at)
"""

COUNTING = """
CREATE FUNCTION vetline_count_inserted() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO tally_change (batch, tenant, state, n)
    SELECT coalesce(batch, ''), coalesce(tenant, ''), state, count(*) FROM new_rows GROUP BY 1, 2, 3;
    RETURN NULL;
END $$;
CREATE FUNCTION vetline_count_deleted() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO tally_change (batch, tenant, state, n)
    SELECT coalesce(batch, ''), coalesce(tenant, ''), state, -count(*) FROM old_rows GROUP BY 1, 2, 3;
    RETURN NULL;
END $$;
CREATE FUNCTION vetline_count_updated() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO tally_change (batch, tenant, state, n)
    SELECT coalesce(batch, ''), coalesce(tenant, ''), state, sum(n) FROM (
        SELECT batch, tenant, state, 1 AS n FROM new_rows UNION ALL SELECT batch, tenant, state, -1 FROM old_rows
    ) AS changed
    GROUP BY 1, 2, 3 HAVING sum(n) <> 0;
    RETURN NULL;
END $$;
CREATE TRIGGER assessment_inserted AFTER INSERT ON assessment
    REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION vetline_count_inserted();
CREATE TRIGGER assessment_deleted AFTER DELETE ON assessment
    REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION vetline_count_deleted();
CREATE TRIGGER assessment_updated AFTER UPDATE ON assessment
    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION vetline_count_updated();
INSERT INTO tally (batch, tenant, state, n)
SELECT coalesce(batch, ''), coalesce(tenant, ''), state, count(*) FROM assessment GROUP BY 1, 2, 3
"""


def upgrade() -> None:
    for statements in (TENANT, LANES, PAUSE, CAP, TALLY, COUNTING):
        op.execute(statements)


def downgrade() -> None:
    op.execute("DROP TRIGGER assessment_inserted ON assessment")
    op.execute("DROP TRIGGER assessment_deleted ON assessment")
    op.execute("DROP TRIGGER assessment_updated ON assessment")
    op.execute("DROP FUNCTION vetline_count_inserted(), vetline_count_deleted(), vetline_count_updated()")
    op.execute("DROP TABLE tally_change, tally, cap, pause")
    op.execute("ALTER TABLE assessment DROP COLUMN tenant")

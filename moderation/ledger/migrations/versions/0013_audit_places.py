"""How far the audit of the ledger has come, part by part: a worker does some of it each minute.

Works while the previous release runs: it does not know the table, and audits nothing.
"""

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

AUDIT_PLACE = """
CREATE TABLE audit_place (
    part text NOT NULL,
    place text NOT NULL,
    rows bigint NOT NULL,
    found jsonb NOT NULL,
    found_before jsonb NOT NULL,
    taken_at timestamptz NOT NULL,
    completed_at timestamptz,
    CONSTRAINT audit_place_pk PRIMARY KEY (part)
);
INSERT INTO audit_place (part, place, rows, found, found_before, taken_at)
SELECT part, '', 0, '{}', '{}', timestamptz 'epoch'
FROM unnest(ARRAY['assessments', 'feed', 'deliveries', 'counters']) AS part
"""


def upgrade() -> None:
    op.execute(AUDIT_PLACE)


def downgrade() -> None:
    op.execute("DROP TABLE audit_place")

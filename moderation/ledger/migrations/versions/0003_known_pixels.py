"""Known pixels are not judged again (reused_from, reuse), and a perceptual hash is kept where it was asked for.

Works while the previous release runs: it leaves the new columns to their defaults and judges everything anew.
"""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

COLUMNS = """
ALTER TABLE assessment ADD COLUMN reuse boolean NOT NULL DEFAULT true;
ALTER TABLE verdict
    ADD COLUMN reused_from uuid CONSTRAINT verdict_reused_from_fk REFERENCES assessment (id),
    ADD COLUMN pdq text,
    ADD COLUMN pdq_quality smallint
"""


def upgrade() -> None:
    op.execute(COLUMNS)


def downgrade() -> None:
    op.execute("ALTER TABLE verdict DROP COLUMN pdq_quality, DROP COLUMN pdq, DROP COLUMN reused_from")
    op.execute("ALTER TABLE assessment DROP COLUMN reuse")

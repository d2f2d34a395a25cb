"""Messages of plain Celery clients: those that no row could be made of, and until when a row may be claimed.

Works while the previous release runs: it does not know the column, and claims what has expired; it does not know the
table, and drops what cannot be read, as before.
"""

from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

EXPIRES = """
ALTER TABLE assessment ADD COLUMN expires_at timestamptz;
CREATE INDEX assessment_expires ON assessment (expires_at) WHERE expires_at IS NOT NULL AND state = 'queued';
"""

REJECTED = """
CREATE TABLE rejected_message (
    id bigint GENERATED ALWAYS AS IDENTITY,
    sha256 text NOT NULL,
    code text NOT NULL,
    detail text NOT NULL,
    queue text NOT NULL,
    bytes bigint NOT NULL,
    body text NOT NULL,
    task_id text,
    task text,
    uri text,
    policy text,
    priority smallint NOT NULL,
    not_before timestamptz,
    expires_at timestamptz,
    times integer NOT NULL DEFAULT 1,
    rejected_at timestamptz NOT NULL DEFAULT now(),
    last_at timestamptz NOT NULL DEFAULT now(),
    worker text NOT NULL,
    resubmitted_at timestamptz,
    assessment_id uuid,
    CONSTRAINT rejected_message_pk PRIMARY KEY (id),
    CONSTRAINT rejected_message_once UNIQUE (sha256)
)
"""


def upgrade() -> None:
    op.execute(EXPIRES)
    op.execute(REJECTED)


def downgrade() -> None:
    op.execute("DROP TABLE rejected_message")
    op.execute("DROP INDEX assessment_expires; ALTER TABLE assessment DROP COLUMN expires_at")

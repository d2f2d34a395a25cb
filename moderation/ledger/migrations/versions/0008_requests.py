"""Requests through the HTTP API that came with an Idempotency-Key, and their answers.

Works while the previous release runs: it does not know the table.
"""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

REQUEST = """
CREATE TABLE request (
    owner text NOT NULL,
    key text NOT NULL,
    body_sha256 text NOT NULL,
    seed uuid NOT NULL,
    answer text,
    begun_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT request_pk PRIMARY KEY (owner, key)
);
CREATE INDEX request_begun ON request (begun_at)
"""


def upgrade() -> None:
    op.execute(REQUEST)


def downgrade() -> None:
    op.execute("DROP TABLE request")

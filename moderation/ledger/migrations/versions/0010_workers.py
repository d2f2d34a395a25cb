"""Workers as they say they are: a row for each process, written with every beat.

Works while the previous release runs: it does not know the table, and its workers are shown by what they hold and
answer, as before.
"""

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

# Half of each page is left free and only the name is indexed, so that a beat is an update in place (HOT) and the pages
# are cleaned as they are written: 256 workers are 32 updates a second.
WORKER = """
CREATE TABLE worker (
    name text NOT NULL,
    host text NOT NULL,
    pid integer NOT NULL,
    gpu text,
    judge text NOT NULL,
    version text NOT NULL,
    runtime text,
    runtime_version text,
    runtime_state text,
    model text,
    ready boolean NOT NULL,
    waits jsonb NOT NULL,
    in_hand integer NOT NULL,
    in_hand_limit integer NOT NULL,
    in_flight integer NOT NULL,
    in_flight_limit integer NOT NULL,
    started_at timestamptz NOT NULL,
    seen_at timestamptz NOT NULL,
    heard_until timestamptz NOT NULL,
    CONSTRAINT worker_pk PRIMARY KEY (name)
) WITH (fillfactor = 50)
"""


def upgrade() -> None:
    op.execute(WORKER)


def downgrade() -> None:
    op.execute("DROP TABLE worker")

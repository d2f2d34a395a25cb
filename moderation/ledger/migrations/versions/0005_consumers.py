"""What consumers read: the feed's epochs, named consumers, views with stable columns, and webhooks.

Works while the previous release runs: it reads none of this, and what it writes gets the column's default. `xid` and
`seq`, on which the feed stands, were there from the first release, so every verdict is in the feed.
"""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

# Transaction ids begin anew where a dump is restored into another cluster: what was there before is an earlier epoch.
# A constant default is added without rewriting the table; a new epoch changes the default.
EPOCH = """
ALTER TABLE verdict ADD COLUMN epoch integer NOT NULL DEFAULT 1;
CREATE TABLE feed_epoch (
    epoch integer CONSTRAINT feed_epoch_pk PRIMARY KEY,
    system_identifier bigint NOT NULL,
    began_at timestamptz NOT NULL DEFAULT now()
);
INSERT INTO feed_epoch (epoch, system_identifier) SELECT 1, system_identifier FROM pg_control_system()
"""

CONSUMER = """
CREATE TABLE consumer (
    name text CONSTRAINT consumer_pk PRIMARY KEY,
    filter jsonb NOT NULL,
    epoch integer NOT NULL,
    xid xid8 NOT NULL,
    seq bigint NOT NULL,
    fence bigint NOT NULL DEFAULT 0,
    holder text,
    lease_until timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    acknowledged_at timestamptz
)
"""

# The secrets stand apart, so that whoever may read about endpoints reads no secret.
WEBHOOK = """
CREATE TABLE webhook (
    id uuid CONSTRAINT webhook_pk PRIMARY KEY,
    name text NOT NULL CONSTRAINT webhook_name_once UNIQUE,
    url text NOT NULL,
    filter jsonb NOT NULL,
    epoch integer NOT NULL,
    xid xid8 NOT NULL,
    seq bigint NOT NULL,
    fence bigint NOT NULL DEFAULT 0,
    holder text,
    lease_until timestamptz,
    due_at timestamptz NOT NULL DEFAULT now(),
    rung_at timestamptz,
    failures integer NOT NULL DEFAULT 0,
    failing_since timestamptz,
    last_error text,
    delivered bigint NOT NULL DEFAULT 0,
    delivered_at timestamptz,
    paused_at timestamptz,
    paused_because text,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE webhook_secret (
    webhook_id uuid NOT NULL CONSTRAINT webhook_secret_webhook_fk REFERENCES webhook (id) ON DELETE CASCADE,
    secret text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    valid_until timestamptz,
    CONSTRAINT webhook_secret_pk PRIMARY KEY (webhook_id, secret)
);
CREATE TABLE webhook_set_aside (
    webhook_id uuid NOT NULL CONSTRAINT webhook_set_aside_webhook_fk REFERENCES webhook (id) ON DELETE CASCADE,
    assessment_id uuid NOT NULL
        CONSTRAINT webhook_set_aside_assessment_fk REFERENCES assessment (id),
    tries integer NOT NULL,
    error text NOT NULL,
    set_aside_at timestamptz NOT NULL DEFAULT now(),
    retry_asked_at timestamptz,
    CONSTRAINT webhook_set_aside_pk PRIMARY KEY (webhook_id, assessment_id)
)
"""

# A URI that may still be fetched may hold a password or a signature, and consumers need neither: userinfo, query,
# fragment and what looks like a token are left out. Of a file, its place is no secret; of data:, only that it is that.
SHOWN = r"""
CREATE FUNCTION vetline_shown(uri text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE
        WHEN uri ~* '^file:' THEN uri
        WHEN uri ~* '^data:' THEN 'data:…'
        ELSE regexp_replace(
            regexp_replace(regexp_replace(uri, '[?#].*$', ''), '://[^/]*@', '://'),
            '(?![0-9a-fA-F-]+(?:[^A-Za-z0-9_-]|$))[A-Za-z0-9_-]{24,}', '…', 'g')
    END
$$
"""

_VERDICT = """
    v.assessment_id, a.uri, r.policy || '@' || r.revision AS policy, r.policy AS policy_id, r.revision AS policy_revision,
    a.batch, a.key, a.metadata, v.rating, v.category, v.rationale, v.rationale_truncated, v.needs_review, v.p_unsafe,
    v.p_unsafe_calibrated, v.judge, v.model, v.weights_sha256, v.runtime, v.runtime_version, v.rung, v.prompt_sha256,
    v.bytes_sha256, v.pixels_sha256, v.media_type, v.width, v.height, v.frames, v.byte_count, v.attempt, a.reassesses,
    v.reused_from, a.created_at AS submitted_at, v.recorded_at
"""
_FROM = """
    FROM verdict v JOIN assessment a ON a.id = v.assessment_id JOIN policy_revision r ON r.id = v.policy_revision_id
"""
_OPEN = """
    a.id AS assessment_id, vetline_shown(a.uri) AS uri, r.policy || '@' || r.revision AS policy,
    r.policy AS policy_id, r.revision AS policy_revision, a.batch, a.key, a.metadata
"""

# verdict_current: an image that was judged again under another revision stands by its last verdict alone.
VIEWS = f"""
CREATE VIEW verdict_history AS SELECT {_VERDICT} {_FROM};
CREATE VIEW feed AS SELECT {_VERDICT}, v.epoch, v.xid, v.seq {_FROM};
CREATE VIEW verdict_current AS SELECT {_VERDICT} {_FROM}
WHERE NOT EXISTS (
    SELECT FROM assessment later JOIN verdict newer ON newer.assessment_id = later.id WHERE later.reassesses = a.id
) AND NOT EXISTS (
    SELECT FROM assessment later JOIN verdict newer ON newer.assessment_id = later.id
    WHERE later.reassesses = a.reassesses AND newer.seq > v.seq
);
CREATE VIEW failure_current AS
SELECT {_OPEN}, a.error_code, a.error_detail, a.attempt, a.crashes, a.created_at AS submitted_at, a.ended_at AS failed_at
FROM assessment a JOIN policy_revision r ON r.id = a.policy_revision_id
WHERE a.state = 'failed';
CREATE VIEW unassessed AS
SELECT {_OPEN}, a.state, a.error_code, a.attempt, a.reassesses, a.created_at AS submitted_at, a.ended_at
FROM assessment a JOIN policy_revision r ON r.id = a.policy_revision_id
WHERE a.state <> 'done'
"""


def upgrade() -> None:
    for statements in (EPOCH, CONSUMER, WEBHOOK, SHOWN, VIEWS):
        op.execute(statements)


def downgrade() -> None:
    op.execute("DROP VIEW unassessed, failure_current, verdict_current, feed, verdict_history")
    op.execute("DROP FUNCTION vetline_shown(text)")
    op.execute("DROP TABLE webhook_set_aside, webhook_secret, webhook, consumer, feed_epoch")
    op.execute("ALTER TABLE verdict DROP COLUMN epoch")

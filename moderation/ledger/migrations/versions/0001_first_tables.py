"""First tables: policy revisions, assessments, attempts, verdicts, and the sweeper's sign of life."""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

POLICY_REVISION = """
CREATE TABLE policy_revision (
    id integer GENERATED ALWAYS AS IDENTITY CONSTRAINT policy_revision_pk PRIMARY KEY,
    policy text NOT NULL,
    revision integer NOT NULL,
    title text NOT NULL,
    document jsonb NOT NULL,
    prompt text NOT NULL,
    prompt_sha256 text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    created_by text NOT NULL,
    reason text NOT NULL,
    retired_at timestamptz,
    CONSTRAINT policy_revision_once UNIQUE (policy, revision)
)
"""

ASSESSMENT = """
CREATE TABLE assessment (
    id uuid CONSTRAINT assessment_pk PRIMARY KEY,
    uri text NOT NULL,
    policy text NOT NULL,
    policy_revision_id integer NOT NULL
        CONSTRAINT assessment_policy_revision_fk REFERENCES policy_revision (id),
    key text,
    batch text,
    priority smallint NOT NULL,
    metadata jsonb,
    state text NOT NULL DEFAULT 'queued'
        CONSTRAINT assessment_state_known CHECK (state IN ('queued', 'running', 'done', 'failed', 'cancelled')),
    attempt integer NOT NULL DEFAULT 0,
    charged integer NOT NULL DEFAULT 0,
    crashes integer NOT NULL DEFAULT 0,
    worker text,
    claimed_at timestamptz,
    lease_until timestamptz,
    not_before timestamptz,
    ring_at timestamptz,
    rung_at timestamptz,
    error_code text,
    error_detail text,
    created_at timestamptz NOT NULL DEFAULT now(),
    ended_at timestamptz,
    CONSTRAINT assessment_key_once UNIQUE (policy, key),
    CONSTRAINT assessment_lease_while_running CHECK ((state = 'running') = (lease_until IS NOT NULL)),
    CONSTRAINT assessment_rings_while_queued CHECK ((state = 'queued') = (ring_at IS NOT NULL OR rung_at IS NOT NULL)),
    CONSTRAINT assessment_due_or_rung CHECK (ring_at IS NULL OR rung_at IS NULL)
) WITH (fillfactor = 70)
"""

ASSESSMENT_INDEXES = """
CREATE INDEX assessment_due ON assessment (priority, ring_at) WHERE ring_at IS NOT NULL;
CREATE INDEX assessment_rung ON assessment (rung_at) WHERE rung_at IS NOT NULL;
CREATE INDEX assessment_leases ON assessment (lease_until) WHERE state = 'running';
CREATE INDEX assessment_failures ON assessment (error_code) WHERE state = 'failed';
CREATE INDEX assessment_batch ON assessment (batch, state) WHERE batch IS NOT NULL
"""

ATTEMPT = """
CREATE TABLE attempt (
    assessment_id uuid NOT NULL CONSTRAINT attempt_assessment_fk REFERENCES assessment (id),
    attempt integer NOT NULL,
    outcome text NOT NULL CONSTRAINT attempt_outcome_known
        CHECK (outcome IN ('done', 'failed', 'retried', 'given_back', 'crashed', 'cancelled')),
    worker text,
    claimed_at timestamptz,
    ended_at timestamptz NOT NULL DEFAULT now(),
    error_code text,
    error_detail text,
    timings_ms jsonb,
    asks jsonb,
    CONSTRAINT attempt_pk PRIMARY KEY (assessment_id, attempt)
)
"""

VERDICT = """
CREATE TABLE verdict (
    assessment_id uuid CONSTRAINT verdict_pk PRIMARY KEY
        CONSTRAINT verdict_assessment_fk REFERENCES assessment (id),
    attempt integer NOT NULL,
    policy_revision_id integer NOT NULL CONSTRAINT verdict_policy_revision_fk REFERENCES policy_revision (id),
    rating text NOT NULL CONSTRAINT verdict_rating_known CHECK (rating IN ('Safe', 'Unsafe')),
    category text NOT NULL,
    rationale text NOT NULL,
    rationale_truncated boolean NOT NULL,
    needs_review boolean NOT NULL,
    p_unsafe double precision,
    p_unsafe_calibrated double precision,
    rung text NOT NULL,
    finish_reason text,
    raw_output text,
    judge text NOT NULL,
    model text NOT NULL,
    weights_sha256 text,
    runtime text NOT NULL,
    runtime_version text NOT NULL,
    template_mode text,
    prompt_sha256 text,
    sampling jsonb,
    bytes_sha256 text NOT NULL,
    pixels_sha256 text NOT NULL,
    media_type text NOT NULL,
    width integer NOT NULL,
    height integer NOT NULL,
    frames integer NOT NULL,
    byte_count bigint NOT NULL,
    view text NOT NULL,
    etag text,
    version text,
    timings_ms jsonb,
    recorded_at timestamptz NOT NULL DEFAULT now(),
    xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
    seq bigint GENERATED ALWAYS AS IDENTITY
)
"""

VERDICT_INDEXES = """
CREATE INDEX verdict_feed ON verdict (xid, seq);
CREATE INDEX verdict_pixels ON verdict (pixels_sha256)
"""

SWEEP = """
CREATE TABLE sweep (
    id smallint CONSTRAINT sweep_pk PRIMARY KEY CONSTRAINT sweep_one_row CHECK (id = 1),
    swept_at timestamptz NOT NULL,
    worker text NOT NULL,
    rung bigint NOT NULL DEFAULT 0,
    expired bigint NOT NULL DEFAULT 0
)
"""

# What an auditor relies on does not change, whoever holds a connection.
KEPT = """
CREATE FUNCTION vetline_kept() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
END $$;
CREATE TRIGGER verdict_kept BEFORE UPDATE OR DELETE ON verdict FOR EACH ROW EXECUTE FUNCTION vetline_kept();
CREATE TRIGGER attempt_kept BEFORE UPDATE OR DELETE ON attempt FOR EACH ROW EXECUTE FUNCTION vetline_kept();
CREATE TRIGGER policy_revision_kept
    BEFORE UPDATE OF policy, revision, document, prompt, prompt_sha256 OR DELETE ON policy_revision
    FOR EACH ROW EXECUTE FUNCTION vetline_kept()
"""

TABLES = (POLICY_REVISION, ASSESSMENT, ASSESSMENT_INDEXES, ATTEMPT, VERDICT, VERDICT_INDEXES, SWEEP, KEPT)


def upgrade() -> None:
    for statements in TABLES:
        op.execute(statements)


def downgrade() -> None:
    op.execute("DROP TABLE sweep, verdict, attempt, assessment, policy_revision")
    op.execute("DROP FUNCTION vetline_kept()")

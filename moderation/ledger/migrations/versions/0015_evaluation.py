"""Evaluation runs, gates that a policy passes before it goes live, shadow judging, and golden items.

Works while the previous release runs: until somebody sets a gate, starts a shadow or adds golden items, nothing that
it does is judged otherwise. Once a policy has a gate, that release still takes the newest revision for the current one,
and the database refuses what it submits under one that is not live: upgrade all processes before setting gates.
"""

from alembic import op

from moderation.ledger.migrations.functions_0015 import (
    DRAWN,
    GATE_CHECK,
    GATE_GUARDED,
    IS_APPROVER,
    MCNEMAR,
    REGRESSION,
    RELEASE_CHECKED,
    RUN_SIGNED,
    SUBMITTED,
)

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

# Functions that guard look names up here and nowhere else: a temporary table of the same name must not stand in for ours.
OUR_SCHEMA = "SELECT set_config('search_path', quote_ident(current_schema()) || ', pg_temp', true)"

APPROVER = """
DO $$
BEGIN
    IF to_regrole('vetline_approver') IS NULL THEN
        CREATE ROLE vetline_approver NOLOGIN;
    END IF;
EXCEPTION
    WHEN duplicate_object OR unique_violation THEN NULL;
    WHEN insufficient_privilege THEN RAISE WARNING 'vetline: % may not create role vetline_approver', current_user;
END $$
"""

# What is judged for another reason than that somebody submitted it. It stays out of feed, views, exports and DSA.
# The check and the index read the table once: some seconds for ten million rows.
PURPOSE = """
ALTER TABLE assessment ADD COLUMN purpose text, ADD COLUMN purpose_of uuid;
ALTER TABLE assessment ADD CONSTRAINT assessment_purpose_known
    CHECK (purpose IN ('evaluation', 'shadow', 'golden'));
CREATE INDEX assessment_purpose ON assessment (purpose, purpose_of) WHERE purpose IS NOT NULL;
CREATE TRIGGER assessment_kept BEFORE UPDATE OF policy, policy_revision_id, purpose, purpose_of ON assessment
    FOR EACH ROW EXECUTE FUNCTION vetline_kept()
"""

RUN = """
CREATE TABLE evaluation_run (
    id uuid CONSTRAINT evaluation_run_pk PRIMARY KEY,
    seq bigint GENERATED ALWAYS AS IDENTITY,
    created_at timestamptz NOT NULL DEFAULT now(),
    created_by text NOT NULL,
    login text NOT NULL DEFAULT session_user,
    source text NOT NULL,
    data_sha256 text NOT NULL,
    policy text NOT NULL,
    policy_revision_id integer CONSTRAINT evaluation_run_policy_revision_fk REFERENCES policy_revision (id),
    prompt_sha256 text,
    model text,
    weights_sha256 text,
    template_mode text,
    uniform boolean NOT NULL,
    code_sha256 text NOT NULL,
    seed bigint NOT NULL,
    confusion jsonb NOT NULL,
    metrics jsonb NOT NULL,
    report jsonb NOT NULL
);
CREATE INDEX evaluation_run_data ON evaluation_run (data_sha256, policy_revision_id);
CREATE TABLE evaluation_item (
    run_id uuid NOT NULL CONSTRAINT evaluation_item_run_fk REFERENCES evaluation_run (id),
    "row" text NOT NULL,
    image text NOT NULL,
    assessment_id uuid,
    unsafe boolean NOT NULL,
    category text,
    policy text,
    exception boolean NOT NULL,
    groups jsonb,
    code text,
    said_unsafe boolean,
    said text,
    p_unsafe double precision,
    p_calibrated double precision,
    needs_review boolean,
    CONSTRAINT evaluation_item_pk PRIMARY KEY (run_id, "row")
);
CREATE TRIGGER evaluation_run_kept BEFORE UPDATE OR DELETE ON evaluation_run
    FOR EACH ROW EXECUTE FUNCTION vetline_kept();
CREATE TRIGGER evaluation_item_kept BEFORE UPDATE OR DELETE ON evaluation_item
    FOR EACH ROW EXECUTE FUNCTION vetline_kept()
"""

GATE = """
CREATE TABLE policy_gate (
    id integer GENERATED ALWAYS AS IDENTITY CONSTRAINT policy_gate_pk PRIMARY KEY,
    policy text NOT NULL,
    data_sha256 text NOT NULL,
    weights_sha256 text,
    template_mode text,
    rules jsonb NOT NULL,
    reason text NOT NULL,
    set_by text NOT NULL,
    login text NOT NULL DEFAULT session_user,
    set_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX policy_gate_policy ON policy_gate (policy, id);
CREATE TABLE policy_release (
    id integer GENERATED ALWAYS AS IDENTITY CONSTRAINT policy_release_pk PRIMARY KEY,
    policy_revision_id integer NOT NULL
        CONSTRAINT policy_release_policy_revision_fk REFERENCES policy_revision (id),
    kind text NOT NULL CONSTRAINT policy_release_kind_known CHECK (kind IN ('before_gate', 'policy', 'model')),
    run_id uuid CONSTRAINT policy_release_run_fk REFERENCES evaluation_run (id),
    weights_sha256 text,
    template_mode text,
    override_reason text,
    released_by text NOT NULL,
    login text NOT NULL DEFAULT session_user,
    released_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX policy_release_revision ON policy_release (policy_revision_id, id);
CREATE TRIGGER policy_gate_kept BEFORE UPDATE OR DELETE ON policy_gate
    FOR EACH ROW EXECUTE FUNCTION vetline_kept();
CREATE TRIGGER policy_release_kept BEFORE UPDATE OR DELETE ON policy_release
    FOR EACH ROW EXECUTE FUNCTION vetline_kept()
"""

SHADOW_AND_GOLDEN = """
CREATE TABLE shadow (
    id integer GENERATED ALWAYS AS IDENTITY CONSTRAINT shadow_pk PRIMARY KEY,
    policy_revision_id integer NOT NULL CONSTRAINT shadow_policy_revision_fk REFERENCES policy_revision (id),
    share double precision NOT NULL CONSTRAINT shadow_share CHECK (share > 0 AND share <= 1),
    started_by text NOT NULL,
    started_at timestamptz NOT NULL DEFAULT now(),
    stopped_by text,
    stopped_at timestamptz
);
CREATE UNIQUE INDEX shadow_once ON shadow (policy_revision_id) WHERE stopped_at IS NULL;
CREATE TABLE golden_item (
    id uuid CONSTRAINT golden_item_pk PRIMARY KEY,
    policy text NOT NULL,
    uri text NOT NULL,
    unsafe boolean NOT NULL,
    category text,
    added_by text NOT NULL,
    added_at timestamptz NOT NULL DEFAULT now(),
    removed_by text,
    removed_at timestamptz
);
CREATE UNIQUE INDEX golden_item_once ON golden_item (policy, md5(uri)) WHERE removed_at IS NULL;
CREATE TABLE golden_rate (
    policy text CONSTRAINT golden_rate_pk PRIMARY KEY,
    share double precision NOT NULL CONSTRAINT golden_rate_share CHECK (share > 0 AND share <= 1),
    set_by text NOT NULL,
    set_at timestamptz NOT NULL DEFAULT now()
)
"""

# policy_live: what a policy's bare id means. policy_usable: revisions that something may be submitted under.
# policy_state: what `vetline policy list` says of each.
LIVE = """
CREATE VIEW policy_usable AS
SELECT r.id AS policy_revision_id, r.policy, r.revision,
       (SELECT max(l.id) FROM policy_release l WHERE l.policy_revision_id = r.id) AS release_id
FROM policy_revision r
WHERE r.retired_at IS NULL AND (
    NOT EXISTS (SELECT FROM policy_gate g WHERE g.policy = r.policy)
    OR EXISTS (SELECT FROM policy_release l WHERE l.policy_revision_id = r.id)
);
CREATE VIEW policy_live AS
SELECT DISTINCT ON (policy) policy, revision, policy_revision_id, release_id FROM policy_usable
ORDER BY policy, release_id DESC NULLS LAST, revision DESC;
CREATE VIEW policy_state AS
SELECT r.id AS policy_revision_id,
       EXISTS (SELECT FROM policy_live l WHERE l.policy_revision_id = r.id) AS current,
       EXISTS (SELECT FROM policy_gate g WHERE g.policy = r.policy) AS gated,
       EXISTS (SELECT FROM policy_release l WHERE l.policy_revision_id = r.id) AS released,
       EXISTS (SELECT FROM shadow s WHERE s.policy_revision_id = r.id AND s.stopped_at IS NULL) AS shadowed,
       EXISTS (SELECT FROM evaluation_run e WHERE e.policy_revision_id = r.id) AS evaluated
FROM policy_revision r
"""

_ADDED = ", v.views_differ, v.review_reasons"  # of 0014
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


def views(live: str) -> str:
    """The views of 0005 and 0014. live: what keeps to what somebody submitted, or nothing."""
    where, more = (f"WHERE {live}", f"AND {live}") if live else ("", "")
    return f"""
        CREATE OR REPLACE VIEW verdict_history AS SELECT {_VERDICT} {_ADDED} {_FROM} {where};
        CREATE OR REPLACE VIEW feed AS SELECT {_VERDICT}, v.epoch, v.xid, v.seq {_ADDED} {_FROM} {where};
        CREATE OR REPLACE VIEW verdict_current AS SELECT {_VERDICT} {_ADDED} {_FROM}
        WHERE NOT EXISTS (
            SELECT FROM assessment later JOIN verdict newer ON newer.assessment_id = later.id WHERE later.reassesses = a.id
        ) AND NOT EXISTS (
            SELECT FROM assessment later JOIN verdict newer ON newer.assessment_id = later.id
            WHERE later.reassesses = a.reassesses AND newer.seq > v.seq
        ) {more};
        CREATE OR REPLACE VIEW failure_current AS
        SELECT {_OPEN}, a.error_code, a.error_detail, a.attempt, a.crashes, a.created_at AS submitted_at,
               a.ended_at AS failed_at
        FROM assessment a JOIN policy_revision r ON r.id = a.policy_revision_id
        WHERE a.state = 'failed' {more};
        CREATE OR REPLACE VIEW unassessed AS
        SELECT {_OPEN}, a.state, a.error_code, a.attempt, a.reassesses, a.created_at AS submitted_at, a.ended_at
        FROM assessment a JOIN policy_revision r ON r.id = a.policy_revision_id
        WHERE a.state <> 'done' {more}
    """


def upgrade() -> None:
    op.execute(APPROVER)
    op.execute(OUR_SCHEMA)
    for statements in (
        PURPOSE, RUN, GATE, SHADOW_AND_GOLDEN, LIVE, MCNEMAR, IS_APPROVER, REGRESSION, GATE_CHECK, RELEASE_CHECKED,
        GATE_GUARDED, RUN_SIGNED, DRAWN, SUBMITTED, views("a.purpose IS NULL"),
    ):  # fmt: skip
        op.execute(statements)


def downgrade() -> None:
    op.execute(views(""))
    op.execute("DROP TRIGGER assessment_submitted ON assessment")
    op.execute("DROP TRIGGER assessment_kept ON assessment")
    op.execute("DROP VIEW policy_state, policy_live, policy_usable")
    op.execute(
        "DROP TABLE policy_release, policy_gate, evaluation_item, evaluation_run, shadow, golden_item, golden_rate"
    )
    op.execute(
        "DROP FUNCTION vetline_submitted(), vetline_id_of_time(timestamptz), "
        "vetline_drawn(text, double precision), vetline_id_beside(uuid, text), "
        "vetline_run_signed(), vetline_gate_guarded(), vetline_release_checked(), "
        "vetline_gate_check(integer, uuid, text), vetline_regression(uuid, uuid, text[]), vetline_is_approver(), "
        "vetline_mcnemar(bigint, bigint)"
    )
    op.execute("DROP INDEX assessment_purpose")
    op.execute("ALTER TABLE assessment DROP COLUMN purpose, DROP COLUMN purpose_of")

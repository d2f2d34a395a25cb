"""A verdict says how much its picture's views differ, and why a person should look at the picture itself.

Columns and view columns are added at the end, empty: the previous release writes and reads on without them.
"""

from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

_ADDED = ("views_differ", "review_reasons")

# As in 0005; what is new stands behind what was there, as CREATE OR REPLACE asks.
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
_CURRENT = """
    WHERE NOT EXISTS (
        SELECT FROM assessment later JOIN verdict newer ON newer.assessment_id = later.id WHERE later.reassesses = a.id
    ) AND NOT EXISTS (
        SELECT FROM assessment later JOIN verdict newer ON newer.assessment_id = later.id
        WHERE later.reassesses = a.reassesses AND newer.seq > v.seq
    )
"""
_MORE = "".join(f", v.{name}" for name in _ADDED)


# This migration alters `verdict`, and a later one of the same upgrade `assessment`. A worker that records locks them the
# other way round. So those who write are kept out first, in their order, while readers go on; then readers, in theirs.
LOCKS = (
    "LOCK TABLE assessment, attempt, verdict IN EXCLUSIVE MODE",
    "LOCK TABLE verdict, assessment IN ACCESS EXCLUSIVE MODE",
)


def upgrade() -> None:
    for lock in LOCKS:
        op.execute(lock)
    op.execute("ALTER TABLE verdict ADD COLUMN views_differ real, ADD COLUMN review_reasons text[]")
    op.execute(f"CREATE OR REPLACE VIEW verdict_history AS SELECT {_VERDICT} {_MORE} {_FROM}")
    op.execute(f"CREATE OR REPLACE VIEW feed AS SELECT {_VERDICT}, v.epoch, v.xid, v.seq {_MORE} {_FROM}")
    op.execute(f"CREATE OR REPLACE VIEW verdict_current AS SELECT {_VERDICT} {_MORE} {_FROM} {_CURRENT}")


def downgrade() -> None:
    """Views lose columns only by being made anew, and their grants with them: those are read and given again."""
    op.execute("""
        CREATE TEMP TABLE kept_grant ON COMMIT DROP AS
        SELECT c.relname, a.grantee::regrole::text AS grantee, string_agg(a.privilege_type, ', ') AS privileges
        FROM pg_class c, aclexplode(c.relacl) a
        WHERE c.relname IN ('verdict_history', 'feed', 'verdict_current') AND a.grantee NOT IN (c.relowner, 0)
        GROUP BY 1, 2
    """)
    op.execute("DROP VIEW verdict_history, feed, verdict_current")
    op.execute(f"CREATE VIEW verdict_history AS SELECT {_VERDICT} {_FROM}")
    op.execute(f"CREATE VIEW feed AS SELECT {_VERDICT}, v.epoch, v.xid, v.seq {_FROM}")
    op.execute(f"CREATE VIEW verdict_current AS SELECT {_VERDICT} {_FROM} {_CURRENT}")
    op.execute("""
        DO $$ DECLARE kept record; BEGIN
            FOR kept IN SELECT * FROM kept_grant LOOP
                EXECUTE format('GRANT %s ON %I TO %s', kept.privileges, kept.relname, kept.grantee);
            END LOOP;
        END $$
    """)
    op.execute("ALTER TABLE verdict DROP COLUMN views_differ, DROP COLUMN review_reasons")

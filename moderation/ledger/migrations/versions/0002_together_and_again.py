"""One image under several policies (submission_id), and under another revision of its policy (reassesses).

Works while the previous release runs: that one leaves both columns empty and claims row by row.
"""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

# Both are empty in every row that is there, so neither is checked against it, and their indexes start empty.
COLUMNS = """
ALTER TABLE assessment
    ADD COLUMN submission_id uuid,
    ADD COLUMN reassesses uuid CONSTRAINT assessment_reassesses_fk REFERENCES assessment (id)
"""

INDEXES = """
CREATE INDEX assessment_submission ON assessment (submission_id)
    WHERE submission_id IS NOT NULL AND state = 'queued';
CREATE INDEX assessment_reassesses ON assessment (reassesses) WHERE reassesses IS NOT NULL;
CREATE INDEX verdict_revision ON verdict (policy_revision_id, assessment_id)
"""

# Who added a revision, when and why is part of what an auditor relies on; only retiring changes a row.
KEPT = """
DROP TRIGGER policy_revision_kept ON policy_revision;
CREATE TRIGGER policy_revision_kept
    BEFORE UPDATE OF {columns} OR DELETE ON policy_revision
    FOR EACH ROW EXECUTE FUNCTION vetline_kept()
"""
CONTENT = "policy, revision, document, prompt, prompt_sha256"
EVERYTHING_BUT_RETIRING = f"id, {CONTENT}, title, created_at, created_by, reason"


def upgrade() -> None:
    op.execute(COLUMNS)
    op.execute(INDEXES)
    op.execute(KEPT.format(columns=EVERYTHING_BUT_RETIRING))


def downgrade() -> None:
    op.execute(KEPT.format(columns=CONTENT))
    op.execute("DROP INDEX verdict_revision")
    op.execute("ALTER TABLE assessment DROP COLUMN reassesses, DROP COLUMN submission_id")

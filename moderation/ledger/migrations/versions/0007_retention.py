"""Retention: raw outputs and URIs may be cleared, nothing else may; legal holds say of what they may not.

Works while the previous release runs: the columns stay empty until somebody clears, and are added without a scan.
"""

from alembic import op

revision = "0007"
down_revision = "0005"
branch_labels = None
depends_on = None

COLUMNS = """
ALTER TABLE assessment ADD COLUMN cleared_at timestamptz;
ALTER TABLE attempt ADD COLUMN cleared_at timestamptz;
ALTER TABLE verdict ADD COLUMN cleared_at timestamptz
"""

HOLD = """
CREATE TABLE legal_hold (
    id integer GENERATED ALWAYS AS IDENTITY CONSTRAINT legal_hold_pk PRIMARY KEY,
    batch text,
    assessment_id uuid CONSTRAINT legal_hold_assessment_fk REFERENCES assessment (id),
    reason text NOT NULL,
    added_by text NOT NULL,
    added_at timestamptz NOT NULL DEFAULT now(),
    removed_by text,
    removed_at timestamptz,
    CONSTRAINT legal_hold_of_one CHECK ((batch IS NULL) <> (assessment_id IS NULL)),
    CONSTRAINT legal_hold_removed_by_somebody CHECK ((removed_at IS NULL) = (removed_by IS NULL))
);
CREATE UNIQUE INDEX legal_hold_batch ON legal_hold (batch) WHERE batch IS NOT NULL AND removed_at IS NULL;
CREATE UNIQUE INDEX legal_hold_assessment ON legal_hold (assessment_id)
    WHERE assessment_id IS NOT NULL AND removed_at IS NULL
"""

# The one change that is let through: once, now, from something to nothing, and every other column as it was, byte for
# byte (*= compares images of rows: by values alone, 1.0 could become 1.00).
KEPT = """
CREATE FUNCTION vetline_without_raw(asks jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$
    SELECT jsonb_agg(ask - 'raw' ORDER BY place) FROM jsonb_array_elements(asks) WITH ORDINALITY AS a (ask, place)
$$;
CREATE FUNCTION vetline_verdict_kept() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    cleared verdict := OLD;
BEGIN
    cleared.raw_output := NULL;
    cleared.cleared_at := now();
    IF TG_OP = 'UPDATE' AND OLD.cleared_at IS NULL AND OLD.raw_output IS NOT NULL AND NEW *= cleared THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION 'verdict is append-only' USING ERRCODE = 'restrict_violation';
END $$;
CREATE FUNCTION vetline_attempt_kept() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    cleared attempt := OLD;
BEGIN
    cleared.asks := vetline_without_raw(OLD.asks);
    cleared.cleared_at := now();
    IF TG_OP = 'UPDATE' AND OLD.cleared_at IS NULL AND OLD.asks IS NOT NULL AND NEW *= cleared THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION 'attempt is append-only' USING ERRCODE = 'restrict_violation';
END $$;
DROP TRIGGER verdict_kept ON verdict;
DROP TRIGGER attempt_kept ON attempt;
CREATE TRIGGER verdict_kept BEFORE UPDATE OR DELETE ON verdict FOR EACH ROW EXECUTE FUNCTION vetline_verdict_kept();
CREATE TRIGGER attempt_kept BEFORE UPDATE OR DELETE ON attempt FOR EACH ROW EXECUTE FUNCTION vetline_attempt_kept()
"""

KEPT_AS_BEFORE = """
DROP TRIGGER verdict_kept ON verdict;
DROP TRIGGER attempt_kept ON attempt;
CREATE TRIGGER verdict_kept BEFORE UPDATE OR DELETE ON verdict FOR EACH ROW EXECUTE FUNCTION vetline_kept();
CREATE TRIGGER attempt_kept BEFORE UPDATE OR DELETE ON attempt FOR EACH ROW EXECUTE FUNCTION vetline_kept();
DROP FUNCTION vetline_verdict_kept(), vetline_attempt_kept(), vetline_without_raw(jsonb)
"""


def upgrade() -> None:
    for statements in (COLUMNS, HOLD, KEPT):
        op.execute(statements)


def downgrade() -> None:
    op.execute(KEPT_AS_BEFORE)
    op.execute("DROP TABLE legal_hold")
    for table in ("assessment", "attempt", "verdict"):
        op.execute(f"ALTER TABLE {table} DROP COLUMN cleared_at")

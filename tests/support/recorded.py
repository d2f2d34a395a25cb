"""Verdicts by the hundred, as workers record them, without the work: rows of all three tables in one statement."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import Connection, text

_POLICY = text("SELECT id FROM policy_revision WHERE policy = :policy ORDER BY revision LIMIT 1")

_RECORD = text("""
    WITH new AS (
        INSERT INTO assessment (id, uri, policy, policy_revision_id, priority, batch, key, state, attempt, charged,
                                ended_at)
        SELECT gen_random_uuid(), 'https://images.test/' || n || '.jpg', :policy_id, :policy, 1, :batch,
               CAST(:prefix AS text) || n, 'done', 1, 1, now()
        FROM generate_series(CAST(:first AS integer), :first + :count - 1) AS n
        RETURNING id, policy_revision_id, key
    ), attempts AS (
        INSERT INTO attempt (assessment_id, attempt, outcome, worker) SELECT id, 1, 'done', 'w1' FROM new
    )
    INSERT INTO verdict (assessment_id, attempt, policy_revision_id, rating, category, rationale, rationale_truncated,
        needs_review, rung, judge, model, runtime, runtime_version, bytes_sha256, pixels_sha256, media_type, width,
        height, frames, byte_count, view)
    SELECT id, 1, policy_revision_id, :rating, :category, 'A cup of coffee.', false, false, 'strict', 'sglang', 'm',
           'sglang', '0.5', 'b', 'c', 'image/jpeg', 640, 480, 1, 12345, 'whole'
    FROM new ORDER BY length(key), key
    RETURNING assessment_id
""")


def record(
    connection: Connection,
    count: int = 1,
    *,
    first: int = 0,
    rating: str = "Safe",
    prefix: str = "k",
    batch: str | None = None,
    policy: str = "llavaguard-default",
) -> Sequence[UUID]:
    """So many verdicts in one statement, in the order of their numbers; the keys are prefix and number."""
    values = {
        "policy": connection.execute(_POLICY, {"policy": policy}).scalar_one(),
        "policy_id": policy,
        "category": "O2: Violence, Harm, or Cruelty" if rating == "Unsafe" else "NA: None applying",
        "count": count,
        "first": first,
        "rating": rating,
        "prefix": prefix,
        "batch": batch,
    }
    return connection.execute(_RECORD, values).scalars().all()

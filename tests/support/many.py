"""Very many judged assessments, made by Postgres itself: what a year of work leaves, in seconds."""

from sqlalchemy import Engine, text

from moderation.ledger.engine import transaction

# Ids as UUIDv7 would have them: in the order of time. One in `unsafe_every` is Unsafe, of nine categories in turn.
_ASSESSMENTS = text("""
    INSERT INTO assessment (id, uri, policy, policy_revision_id, key, batch, priority, metadata, state, attempt,
                            charged, created_at, ended_at)
    SELECT CAST(lpad(to_hex(ms), 12, '0') || '7000' || '8000' || lpad(to_hex(n), 12, '0') AS uuid),
           'https://images.test/class-' || n % 20 || '/' || n || '.jpg', r.policy, r.id, 'k' || n, :batch, 1,
           jsonb_build_object('label', 'label ' || n % 7, 'n', n), 'done', 1, 1,
           to_timestamp(ms / 1000), to_timestamp(ms / 1000 + 1)
    FROM policy_revision r, (
        SELECT n, 1000 * (extract(epoch FROM CAST(:start AS timestamptz))::bigint + n) AS ms
        FROM generate_series(CAST(:first AS bigint), CAST(:first AS bigint) + :rows - 1) AS n
    ) AS numbered
    WHERE r.policy = 'llavaguard-default'
""")

_ATTEMPTS = text("""
    INSERT INTO attempt (assessment_id, attempt, outcome, worker, claimed_at, ended_at, timings_ms, asks)
    SELECT id, 1, 'done', 'w1', created_at, ended_at, '{"judge": 20.5}',
           '[{"rung": "strict", "raw": "{\\"rating\\": \\"Safe\\"}", "problem": null, "elapsed_ms": 20.5}]'
    FROM assessment WHERE batch = :batch ORDER BY id
""")

_VERDICTS = text("""
    INSERT INTO verdict (assessment_id, attempt, policy_revision_id, rating, category, rationale,
                         rationale_truncated, needs_review, p_unsafe, rung, raw_output, judge, model, runtime,
                         runtime_version, prompt_sha256, bytes_sha256, pixels_sha256, media_type, width, height,
                         frames, byte_count, view, timings_ms, recorded_at)
    SELECT id, 1, policy_revision_id, CASE WHEN n % :every = 0 THEN 'Unsafe' ELSE 'Safe' END,
           CASE WHEN n % :every = 0 THEN 'O' || 1 + n / :every % 9 || ': Category' ELSE 'NA: None applying' END,
           'The image shows a person who walks along a street past number ' || n || ', and nothing that the policy '
           'would not allow; the category is given as none applying for that reason.',
           false, false, n % 1000 / 1000.0, 'strict', '{"rating": "Safe"}', 'sglang', 'LlavaGuard-v1.2-0.5B-OV', 'sglang',
           '0.5.16', repeat('a', 64), md5(n::text) || md5('b' || n), md5('p' || n) || md5('q' || n), 'image/jpeg',
           640, 480, 1, 100000 + n, 'whole', '{"fetch": 12.5, "decode": 3.25, "judge": 20.5}', ended_at
    FROM (SELECT *, (metadata ->> 'n')::bigint AS n FROM assessment WHERE batch = :batch) judged ORDER BY id
""")


def judge_many(
    engine: Engine,
    rows: int,
    *,
    batch: str = "many",
    start: str = "2026-01-01 00:00+00",
    first: int = 1,
    unsafe_every: int = 50,
) -> None:
    """So many verdicts in a batch, a second apart, numbered from `first`. The built-in policies stand already."""
    with transaction(engine, patience_s=3600) as connection:
        connection.execute(_ASSESSMENTS, {"rows": rows, "batch": batch, "start": start, "first": first})
        connection.execute(_ATTEMPTS, {"batch": batch})
        connection.execute(_VERDICTS, {"batch": batch, "every": unsafe_every})

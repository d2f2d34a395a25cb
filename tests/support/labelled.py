"""Labelled verdicts by the thousand, as workers and `vetline enqueue` would leave them, made by Postgres itself."""

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic_core import to_json
from sqlalchemy import Engine, text

from moderation.ledger.engine import transaction
from moderation.ledger.policies import pin

_MAKE = text("""
    WITH given AS (
        SELECT * FROM json_to_recordset(CAST(:rows AS json))
            AS r (n integer, image integer, label text, rating text, category text, said text, p float8, source text)
    ), made AS (
        INSERT INTO assessment (id, uri, policy, policy_revision_id, key, batch, priority, metadata, state, attempt,
                                ended_at, purpose)
        SELECT CAST(md5(:batch || ' ' || n) AS uuid), 'https://images.test/' || image || '.jpg', :policy, :revision,
               :batch || '/' || n, :batch, 1,
               jsonb_build_object('id', n, 'label', label, 'category', category, 'source', source), 'done', 1, now(),
               CAST(:purpose AS text)
        FROM given RETURNING id
    ), attempted AS (
        INSERT INTO attempt (assessment_id, attempt, outcome, worker, claimed_at, timings_ms, asks)
        SELECT id, 1, 'done', 'w1', now(), '{"judge": 20.5}',
               '[{"rung": "strict", "prompt_tokens": 3000, "completion_tokens": 60}]' FROM made
    )
    INSERT INTO verdict (assessment_id, attempt, policy_revision_id, rating, category, rationale, rationale_truncated,
        needs_review, p_unsafe, rung, judge, model, weights_sha256, template_mode, runtime, runtime_version, bytes_sha256,
        pixels_sha256, media_type, width, height, frames, byte_count, view)
    SELECT CAST(md5(:batch || ' ' || n) AS uuid), 1, :revision, rating, said, 'Seen.', false,
           coalesce(p BETWEEN 0.45 AND 0.55, false), p, 'strict', 'sglang', :model, :weights, 'train', 'sglang', '0.5.16',
           md5('b' || image) || md5('b'), md5('p' || image) || md5('p'), 'image/jpeg', 640, 480, 1, 12345, 'whole'
    FROM given ORDER BY n
""")


_NONE = "NA: None applying"


@dataclass(frozen=True, slots=True)
class Made:
    """One labelled verdict. image: rows with the same number are about one picture."""

    n: int
    unsafe: bool
    said_unsafe: bool
    image: int | None = None
    category: str = "O2: Violence, Harm, or Cruelty"
    p: float | None = None
    source: str = "web"


def judged_batch(
    engine: Engine,
    rows: Sequence[Made],
    *,
    batch: str,
    policy: str = "llavaguard-default@1",
    model: str = "LlavaGuard-v1.2-0.5B-OV",
    weights: str = "a" * 64,
    purpose: str | None = "evaluation",
    scored: bool = True,
) -> None:
    """A batch whose metadata hold `label`, `category` and `source`, each row with its verdict. scored: with P(unsafe)."""
    pinned = pin(engine, [policy], unreleased=True)[policy]
    given = [
        {
            "n": row.n,
            "image": row.n if row.image is None else row.image,
            "label": "Unsafe" if row.unsafe else "Safe",
            "rating": "Unsafe" if row.said_unsafe else "Safe",
            "category": row.category if row.unsafe else _NONE,
            "said": row.category if row.said_unsafe else _NONE,
            "p": row.p if row.p is not None or not scored else 0.9 if row.said_unsafe else 0.1,
            "source": row.source,
        }
        for row in rows
    ]
    values = {
        "batch": batch, "policy": pinned.policy, "revision": pinned.id, "model": model, "weights": weights,
        "purpose": purpose,
    }  # fmt: skip
    with transaction(engine, patience_s=600) as connection:
        for start in range(0, len(given), 5000):
            page = to_json(given[start : start + 5000]).decode()
            connection.execute(_MAKE, values | {"rows": page})


def of_counts(tp: int, fn: int, fp: int, tn: int) -> list[Made]:
    """Rows that come to these counts, the Unsafe first."""
    cells = [(True, True)] * tp + [(True, False)] * fn + [(False, True)] * fp + [(False, False)] * tn
    return [Made(n, unsafe, said) for n, (unsafe, said) in enumerate(cells)]

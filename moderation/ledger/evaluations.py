"""What an evaluation asks of the ledger: judge these labelled rows, how far is it, and what do the verdicts say.

Rows of an evaluation are assessments with a purpose: workers judge them like any other, at low priority, and no feed,
view, export or draft shows them. Their key is the batch and the row, so a run that was broken off goes on.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from pydantic_core import to_json
from sqlalchemy import Engine, text

from moderation.assessment import Priority
from moderation.ledger.engine import autocommit, transaction

_PATIENCE_S = 600.0  # of one statement over a large batch
_PAGE = 5000

_SUBMIT = text("""
    INSERT INTO assessment (id, uri, policy, policy_revision_id, key, batch, priority, reuse, ring_at, purpose)
    SELECT id, uri, policy, policy_revision_id, key, :batch, :priority, :reuse, now(), 'evaluation'
    FROM json_to_recordset(CAST(:rows AS json)) AS r (id uuid, uri text, policy text, policy_revision_id integer, key text)
    ON CONFLICT DO NOTHING
""")

_OUTCOME = """
    a.id, a.key, a.uri, a.state, a.error_code, v.rating, v.category, v.p_unsafe, v.p_unsafe_calibrated, v.needs_review,
    v.pixels_sha256, v.judge, v.model, v.weights_sha256, v.runtime, v.runtime_version, v.template_mode,
    v.sampling::text AS sampling, v.policy_revision_id AS judged_under
"""

_OF_BATCH = text(f"""
    SELECT {_OUTCOME}, a.metadata FROM assessment a LEFT JOIN verdict v ON v.assessment_id = a.id
    WHERE a.batch = :batch ORDER BY a.id
""")

# Of each place the last verdict under the revision, as people would find it.
_OF_URIS = text(f"""
    SELECT DISTINCT ON (a.uri) {_OUTCOME}, NULL AS metadata
    FROM unnest(CAST(:uris AS text[])) AS wanted (uri) JOIN assessment a ON a.uri = wanted.uri
    JOIN verdict v ON v.assessment_id = a.id
    WHERE v.policy_revision_id = :revision AND (CAST(:model AS text) IS NULL OR v.model = :model)
    ORDER BY a.uri, v.seq DESC
""")

_COST = text("""
    SELECT count(*) AS verdicts, coalesce(sum((t.timings_ms ->> 'judge')::float8), 0) / 1000 AS judge_s,
           coalesce(sum(k.prompt), 0)::bigint AS prompt_tokens, coalesce(sum(k.answer), 0)::bigint AS answer_tokens,
           coalesce(extract(epoch FROM max(t.ended_at) - min(t.claimed_at)), 0)::float8 AS lasted_s
    FROM unnest(CAST(:ids AS uuid[])) AS wanted (id)
    JOIN attempt t ON t.assessment_id = wanted.id AND t.outcome = 'done'
    LEFT JOIN LATERAL (
        SELECT sum((ask ->> 'prompt_tokens')::bigint) AS prompt, sum((ask ->> 'completion_tokens')::bigint) AS answer
        FROM jsonb_array_elements(t.asks) AS ask
    ) k ON true
""")


@dataclass(frozen=True, slots=True)
class ToJudge:
    """A labelled row as an assessment. key: the same for the same row of the same batch."""

    id: UUID
    uri: str
    policy: str
    policy_revision_id: int
    key: str


@dataclass(frozen=True, slots=True)
class ItemOutcome:
    """What became of an assessment. rating and what follows: None unless state is done. judged_under: the revision's id."""

    id: UUID
    key: str | None
    uri: str
    state: str
    error_code: str | None
    rating: str | None
    category: str | None
    p_unsafe: float | None
    p_unsafe_calibrated: float | None
    needs_review: bool | None
    pixels_sha256: str | None
    judge: str | None
    model: str | None
    weights_sha256: str | None
    runtime: str | None
    runtime_version: str | None
    template_mode: str | None
    sampling: str | None
    judged_under: int | None
    metadata: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class Cost:
    """What verdicts cost. lasted_s: from the first claim to the last end, seconds."""

    verdicts: int
    judge_s: float
    prompt_tokens: int
    answer_tokens: int
    lasted_s: float


def submit_rows(engine: Engine, rows: Sequence[ToJudge], *, batch: str, reuse: bool) -> int:
    """Queue what is not there yet, at low priority; how many that were. Safe to repeat."""
    written = to_json(
        [
            {
                "id": r.id,
                "uri": r.uri,
                "policy": r.policy,
                "policy_revision_id": r.policy_revision_id,
                "key": r.key,
            }
            for r in rows
        ]
    ).decode()
    values = {"rows": written, "batch": batch, "priority": int(Priority.LOW), "reuse": reuse}
    with autocommit(engine) as connection:
        return connection.execute(_SUBMIT, values).rowcount


def outcomes_of_batch(engine: Engine, batch: str) -> Iterator[ItemOutcome]:
    """Every assessment of a batch, streamed."""
    yield from _streamed(engine, _OF_BATCH, {"batch": batch})


def outcomes_of_uris(
    engine: Engine, uris: Sequence[str], revision: int, *, model: str | None
) -> Iterator[ItemOutcome]:
    """The last verdict about each of these places under a revision, whoever submitted it."""
    for start in range(0, len(uris), _PAGE * 10):
        values = {"uris": list(uris[start : start + _PAGE * 10]), "revision": revision, "model": model}
        yield from _streamed(engine, _OF_URIS, values)


def cost_of(engine: Engine, ids: Sequence[UUID]) -> Cost:
    """What the verdicts of these assessments cost."""
    with transaction(engine, patience_s=_PATIENCE_S) as connection:
        return Cost(**connection.execute(_COST, {"ids": list(ids)}).mappings().one())


def _streamed(engine: Engine, statement: Any, values: Mapping[str, Any]) -> Iterator[ItemOutcome]:
    with transaction(engine, patience_s=_PATIENCE_S) as connection:
        result = connection.execution_options(yield_per=_PAGE).execute(statement, values)
        for row in result:
            yield ItemOutcome(*row)

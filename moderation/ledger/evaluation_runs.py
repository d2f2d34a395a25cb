"""Evaluation runs: written once, with their rows; listed and read again."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic_core import to_json
from sqlalchemy import Connection, Engine, text

from moderation.errors import InvalidSubmission
from moderation.ledger.engine import autocommit, transaction

_PATIENCE_S = 600.0
_PAGE = 5000

_SAVE = text("""
    INSERT INTO evaluation_run (id, created_by, source, data_sha256, policy, policy_revision_id, prompt_sha256, model,
                                weights_sha256, template_mode, uniform, code_sha256, seed, confusion, metrics, report)
    VALUES (:id, :created_by, :source, :data_sha256, :policy, :policy_revision_id, :prompt_sha256, :model,
            :weights_sha256, :template_mode, :uniform, :code_sha256, :seed, CAST(:confusion AS jsonb),
            CAST(:metrics AS jsonb), CAST(:report AS jsonb))
    ON CONFLICT (id) DO NOTHING RETURNING id
""")

_ITEM = {
    "row": "text", "image": "text", "assessment_id": "uuid", "unsafe": "boolean", "category": "text", "policy": "text",
    "exception": "boolean", "groups": "jsonb", "code": "text", "said_unsafe": "boolean", "said": "text",
    "p_unsafe": "double precision", "p_calibrated": "double precision", "needs_review": "boolean",
}  # fmt: skip
_COLUMNS = ", ".join(f'"{name}"' for name in _ITEM)
_GIVEN = ", ".join(f'"{name}" {kind}' for name, kind in _ITEM.items())
_SAVE_ITEMS = text(f"""
    INSERT INTO evaluation_item (run_id, {_COLUMNS})
    SELECT :run_id, {_COLUMNS} FROM json_to_recordset(CAST(:rows AS json)) AS r ({_GIVEN})
""")

_HEAD = """
    id, seq, created_at, created_by, source, data_sha256, policy, policy_revision_id, model, weights_sha256, template_mode,
    uniform, confusion, metrics, report
"""
_RUNS = text(f"""
    SELECT {_HEAD} FROM evaluation_run
    WHERE (CAST(:policy AS text) IS NULL OR policy = :policy OR split_part(policy, '@', 1) = :policy)
    ORDER BY seq DESC LIMIT :limit
""")
_FIND = text(
    f"SELECT {_HEAD} FROM evaluation_run WHERE id::text LIKE :start || '%' ORDER BY seq DESC LIMIT 2"
)
_ITEMS = text(f"""
    SELECT {_COLUMNS}, (SELECT uri FROM assessment a WHERE a.id = assessment_id) AS uri
    FROM evaluation_item WHERE run_id = :run_id ORDER BY "row"
""")
_USED = text("SELECT count(*) FROM evaluation_run WHERE data_sha256 = :data_sha256 AND id <> :id")


@dataclass(frozen=True, slots=True)
class Run:
    """A run as it stands. policy: id@revision, or `own` where each row had its own. report: the whole of it."""

    id: UUID
    seq: int
    created_at: datetime
    created_by: str
    source: str
    data_sha256: str
    policy: str
    policy_revision_id: int | None
    model: str | None
    weights_sha256: str | None
    template_mode: str | None
    uniform: bool
    confusion: Mapping[str, int]
    metrics: Mapping[str, Any]
    report: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class EvaluationItem:
    """A labelled row of a run, as its columns are named in the ledger. uri: where its image is, without secrets."""

    row: str
    image: str
    assessment_id: UUID | None
    unsafe: bool
    category: str | None
    policy: str | None
    exception: bool
    groups: Sequence[str | None] | None
    code: str | None
    said_unsafe: bool | None
    said: str | None
    p_unsafe: float | None
    p_calibrated: float | None
    needs_review: bool | None
    uri: str | None = None


def save_run(engine: Engine, head: Mapping[str, Any], items: Iterator[EvaluationItem]) -> bool:
    """Write a run and its rows, all or nothing; False where exactly this run stands already."""
    written = dict(head)
    for name in ("confusion", "metrics", "report"):
        written[name] = to_json(head[name]).decode()
    with transaction(engine, patience_s=_PATIENCE_S) as connection:
        if connection.execute(_SAVE, written).first() is None:
            return False
        page: list[dict[str, Any]] = []
        for item in items:
            page.append({name: getattr(item, name) for name in _ITEM})
            if len(page) == _PAGE:
                _save_page(connection, head["id"], page)
                page = []
        _save_page(connection, head["id"], page)
    return True


def runs(engine: Engine, *, policy: str | None = None, limit: int = 50) -> list[Run]:
    """The newest first, of one policy (its id, or id@revision) or of all."""
    with autocommit(engine) as connection:
        return [Run(*row) for row in connection.execute(_RUNS, {"policy": policy, "limit": limit})]


def find_run(engine: Engine, start: str) -> Run:
    """The run whose id begins so. Raises InvalidSubmission where there is none, or more than one."""
    if len(start) < 6 or not all(c in "0123456789abcdef-" for c in start):
        raise InvalidSubmission(f"a run's id, or at least its first 6 digits; not {start!r}")
    with autocommit(engine) as connection:
        found = [Run(*row) for row in connection.execute(_FIND, {"start": start})]
    if len(found) != 1:
        raise InvalidSubmission(
            f"{'more than one run' if found else 'no run'} begins with {start}; see `vetline evaluations list`"
        )
    return found[0]


def items_of(engine: Engine, run_id: UUID) -> Iterator[EvaluationItem]:
    """The rows of a run, by their names, streamed."""
    with transaction(engine, patience_s=_PATIENCE_S) as connection:
        for row in connection.execution_options(yield_per=_PAGE).execute(_ITEMS, {"run_id": run_id}):
            yield EvaluationItem(*row)


def times_used(engine: Engine, data_sha256: str, *, but: UUID) -> int:
    """How many other runs were on the same data."""
    with autocommit(engine) as connection:
        return int(connection.execute(_USED, {"data_sha256": data_sha256, "id": but}).scalar_one())


def _save_page(connection: Connection, run_id: UUID, page: Sequence[Mapping[str, Any]]) -> None:
    if page:
        connection.execute(
            _SAVE_ITEMS, {"run_id": run_id, "rows": to_json(page, inf_nan_mode="null").decode()}
        )

"""Messages of which no row could be made: noted, listed, sent again, dropped."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic_core import to_json
from sqlalchemy import Engine, text

from moderation.ledger.engine import reaching_postgres

# A flood of noise must not fill the disk. What names an image is kept, however many there are.
_MOST_NOISE = 10_000

_GIVEN = {
    "sha256": "text", "code": "text", "detail": "text", "queue": "text", "bytes": "bigint", "body": "text",
    "task_id": "text", "task": "text", "uri": "text", "policy": "text", "priority": "smallint",
    "not_before": "timestamptz", "expires_at": "timestamptz", "times": "integer",
}  # fmt: skip
_COLUMNS = ", ".join(_GIVEN)

_NOTE = text(f"""
    INSERT INTO rejected_message AS m ({_COLUMNS}, worker)
    SELECT {_COLUMNS}, :worker
    FROM json_to_recordset(CAST(:rows AS json)) AS given ({", ".join(f"{name} {kind}" for name, kind in _GIVEN.items())})
    WHERE given.uri IS NOT NULL
        OR (SELECT count(*) FROM rejected_message AS r WHERE r.uri IS NULL AND r.resubmitted_at IS NULL) < :most_noise
        OR EXISTS (SELECT FROM rejected_message AS r WHERE r.sha256 = given.sha256)
    ON CONFLICT (sha256) DO UPDATE SET
        times = m.times + excluded.times, last_at = now(), code = excluded.code, detail = excluded.detail,
        resubmitted_at = NULL
""")

_SHOWN = """m.id, m.code, m.detail, m.queue, m.bytes, m.task_id, m.task, m.policy, m.priority, m.not_before,
    m.expires_at, m.times, m.rejected_at, m.last_at, m.worker, m.resubmitted_at, m.assessment_id"""
_WANTED = "(CAST(:code AS text) IS NULL OR m.code = :code) AND (:all OR m.resubmitted_at IS NULL)"

_LIST = text(f"SELECT {_SHOWN} FROM rejected_message m WHERE {_WANTED} ORDER BY m.id DESC LIMIT :limit")
_SHOW = text(f"SELECT {_SHOWN}, m.body FROM rejected_message m WHERE m.id = :id")
_COUNT = text("""
    SELECT m.code, count(*) AS n FROM rejected_message m WHERE m.resubmitted_at IS NULL GROUP BY m.code ORDER BY m.code
""")
_TO_SEND = text(f"""
    SELECT {_SHOWN}, m.uri, m.sha256 FROM rejected_message m
    WHERE (m.id = ANY(:ids) OR (:by_code AND {_WANTED})) ORDER BY m.id
""")
_SENT = text("UPDATE rejected_message SET resubmitted_at = now(), assessment_id = :row WHERE id = :id")
_DROP = text("""
    DELETE FROM rejected_message m
    WHERE m.id = ANY(:ids) OR CAST(:code AS text) = m.code OR (:resubmitted AND m.resubmitted_at IS NOT NULL)
""")


@dataclass(frozen=True, slots=True)
class Rejection:
    """What is noted of a message. size: in bytes. body: without secrets, cut short."""

    sha256: str
    code: str
    detail: str
    queue: str
    size: int
    body: str
    task_id: str | None
    task: str | None
    uri: str | None
    policy: str | None
    priority: int
    not_before: datetime | None
    expires_at: datetime | None


def note_rejected(engine: Engine, rejections: Iterable[Rejection], *, worker: str) -> None:
    """Committed when this returns; safe to repeat: one that comes again is counted. Raises LedgerUnavailable."""
    noted = list(rejections)
    once, times = {one.sha256: one for one in noted}, Counter(one.sha256 for one in noted)
    rows = [_as_row(one) | {"times": times[sha256]} for sha256, one in once.items()]
    if not rows:
        return
    values = {"rows": to_json(rows).decode(), "worker": worker, "most_noise": _MOST_NOISE}
    with reaching_postgres(), engine.connect() as connection:
        connection.execute(_NOTE, values)


def rejected_counts(engine: Engine) -> dict[str, int]:
    """Messages that were rejected and neither sent again nor dropped, by code."""
    with reaching_postgres(), engine.connect() as connection:
        return {row.code: row.n for row in connection.execute(_COUNT)}


def rejected_messages(
    engine: Engine, *, code: str | None = None, resubmitted: bool = False, limit: int = 100
) -> list[dict[str, Any]]:
    """What was rejected, newest first. resubmitted: those that were sent again as well."""
    values = {"code": code, "all": resubmitted, "limit": limit}
    with reaching_postgres(), engine.connect() as connection:
        return [dict(row) for row in connection.execute(_LIST, values).mappings()]


def rejected_message(engine: Engine, id_: int) -> dict[str, Any] | None:
    """One of them, with its body; None where there is none."""
    with reaching_postgres(), engine.connect() as connection:
        row = connection.execute(_SHOW, {"id": id_}).mappings().one_or_none()
        return None if row is None else dict(row)


def messages_to_send(engine: Engine, ids: Sequence[int], code: str | None) -> list[dict[str, Any]]:
    """Those of these ids, and all of a code that were not sent again, with their URIs as they came."""
    values = {"ids": list(ids), "by_code": code is not None, "code": code, "all": False}
    with reaching_postgres(), engine.connect() as connection:
        return [dict(row) for row in connection.execute(_TO_SEND, values).mappings()]


def note_resubmitted(engine: Engine, id_: int, row: UUID) -> None:
    """It became this assessment."""
    with reaching_postgres(), engine.connect() as connection:
        connection.execute(_SENT, {"id": id_, "row": row})


def drop_rejected(
    engine: Engine, *, ids: Sequence[int] = (), code: str | None = None, resubmitted: bool = False
) -> int:
    """Delete these, all of a code, or all that were sent again; how many."""
    values = {"ids": list(ids), "code": code, "resubmitted": resubmitted}
    with reaching_postgres(), engine.connect() as connection:
        return int(connection.execute(_DROP, values).rowcount)


def _as_row(rejection: Rejection) -> dict[str, Any]:
    """Under the columns' names, and without what Postgres cannot hold."""
    told = asdict(rejection)
    told["bytes"] = told.pop("size")
    return {name: _storable(value) if isinstance(value, str) else value for name, value in told.items()}


def _storable(text_: str) -> str:
    return text_.replace("\0", "\\0").encode("utf-8", "backslashreplace").decode()

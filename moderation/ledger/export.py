"""Reads verdicts for an export, filtered and in commit order, a page at a time; and the counts of a report.

One read-only transaction holds all of it, so a report counts exactly what its file holds. A server-side cursor keeps
memory constant on both sides. The order is that of the index `verdict_feed`, so nothing is sorted.
"""

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, Engine, text

from moderation.ledger.engine import transaction
from moderation.redaction import MARK

PATIENCE_S = 3600.0  # of one statement: counts over 100 million assessments take minutes
PAGE = 5000  # rows held at a time: some 10 MB of them

Page = Sequence[Sequence[Any]]


class ColumnKind(StrEnum):
    """What a column holds, whatever the format that it is written in."""

    TEXT = "text"
    WORD = "word"  # a text of few different values
    INT32 = "int32"
    INT64 = "int64"
    REAL = "real"  # 64-bit
    FLAG = "flag"
    TIME = "time"  # with its zone, UTC
    JSON = "json"


@dataclass(frozen=True, slots=True)
class Column:
    """A column of every export: its name, what it holds, how it is read, and what it says."""

    name: str
    kind: ColumnKind
    sql: str
    says: str


# The order and the names are promised: new columns come at the end (docs/exports.md).
COLUMNS = (
    Column(
        "id", ColumnKind.TEXT, "v.assessment_id::text", "the assessment, a UUID; `vetline explain` takes it"
    ),
    Column("uri", ColumnKind.TEXT, "a.uri", "where the image was, without passwords and signatures"),
    Column(
        "policy", ColumnKind.WORD, "r.policy || '@' || r.revision", "policy revision, such as `newsroom@2`"
    ),
    Column("policy_revision", ColumnKind.INT32, "r.revision", "the revision's number alone"),
    Column("batch", ColumnKind.WORD, "a.batch", "the batch that it was submitted in"),
    Column("key", ColumnKind.TEXT, "a.key", "the producer's idempotency key"),
    Column("rating", ColumnKind.WORD, "v.rating", "`Safe` or `Unsafe`"),
    Column(
        "category",
        ColumnKind.WORD,
        "v.category",
        "the policy's full name for it, such as `O4: Nudity Content`",
    ),
    Column("rationale", ColumnKind.TEXT, "v.rationale", "why, in the model's words"),
    Column(
        "rationale_truncated", ColumnKind.FLAG, "v.rationale_truncated", "whether the rationale was cut off"
    ),
    Column("needs_review", ColumnKind.FLAG, "v.needs_review", "whether a person should look"),
    Column("p_unsafe", ColumnKind.REAL, "v.p_unsafe", "P(unsafe), 0 to 1, as the model gave it"),
    Column("p_unsafe_calibrated", ColumnKind.REAL, "v.p_unsafe_calibrated", "the same as a frequency"),
    Column("judge", ColumnKind.WORD, "v.judge", "`sglang`, `open-nsfw`, ..."),
    Column("model", ColumnKind.WORD, "v.model", "the model's name"),
    Column("weights_sha256", ColumnKind.WORD, "v.weights_sha256", "digest of the weights, hexadecimal"),
    Column("runtime", ColumnKind.WORD, "v.runtime", "what ran the model"),
    Column("runtime_version", ColumnKind.WORD, "v.runtime_version", "and its version"),
    Column("prompt_sha256", ColumnKind.WORD, "v.prompt_sha256", "digest of the prompt as sent, hexadecimal"),
    Column("rung", ColumnKind.WORD, "v.rung", "how the answer was reached; `strict` is the first way"),
    Column("bytes_sha256", ColumnKind.TEXT, "v.bytes_sha256", "digest of the image's bytes, hexadecimal"),
    Column("pixels_sha256", ColumnKind.TEXT, "v.pixels_sha256", "digest of the decoded pixels, hexadecimal"),
    Column("media_type", ColumnKind.WORD, "v.media_type", "as its bytes say, such as `image/jpeg`"),
    Column("width", ColumnKind.INT32, "v.width", "pixels, as a person sees it"),
    Column("height", ColumnKind.INT32, "v.height", "pixels"),
    Column("frames", ColumnKind.INT32, "v.frames", "1 for a still"),
    Column("byte_count", ColumnKind.INT64, "v.byte_count", "bytes of the file"),
    Column("view", ColumnKind.WORD, "v.view", "the view of the image that the verdict stands on"),
    Column(
        "reused_from",
        ColumnKind.TEXT,
        "v.reused_from::text",
        "the assessment of the same pixels that answered",
    ),
    Column("attempt", ColumnKind.INT32, "v.attempt", "which attempt gave the verdict"),
    Column("fetch_ms", ColumnKind.REAL, "(v.timings_ms ->> 'fetch')::float8", "milliseconds to fetch"),
    Column("decode_ms", ColumnKind.REAL, "(v.timings_ms ->> 'decode')::float8", "milliseconds to decode"),
    Column("judge_ms", ColumnKind.REAL, "(v.timings_ms ->> 'judge')::float8", "milliseconds to judge"),
    Column("submitted_at", ColumnKind.TIME, "a.created_at", "UTC"),
    Column("recorded_at", ColumnKind.TIME, "v.recorded_at", "UTC"),
    Column("metadata", ColumnKind.JSON, "a.metadata::text", "what the producer sent along, a JSON object"),
    Column(
        "views_differ",
        ColumnKind.REAL,
        "v.views_differ::float8",
        "how much two views of it differ, in levels of 255",
    ),
    Column(
        "review_reasons",
        ColumnKind.WORD,
        "array_to_string(v.review_reasons, ' ')",
        "why the picture itself needs a person's look, words with spaces between",
    ),
)


@dataclass(frozen=True, slots=True)
class ExportFilter:
    """Which verdicts are meant. A field that is None leaves the choice open.

    since, until: when they were recorded; until is not included. policy: an id, any revision; with `revision`, one.
    category: an id such as O4. score_from, score_to: P(unsafe) as the model gave it, both included; a verdict that
    has none is in no range. current: of an image that was judged again, the last verdict alone.
    """

    since: datetime | None = None
    until: datetime | None = None
    policy: str | None = None
    revision: int | None = None
    batch: str | None = None
    rating: str | None = None
    category: str | None = None
    score_from: float | None = None
    score_to: float | None = None
    current: bool | None = None

    @property
    def values(self) -> dict[str, Any]:
        """What is bound: the fields that were given."""
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {name: value for name, value in fields.items() if value is not None}


_OF_ASSESSMENT = {
    "policy": "a.policy = :policy",
    "revision": "r.revision = :revision",
    "batch": "a.batch = :batch",
}
# What waits to be judged again stands by the verdict that it has.
_CURRENT = "EXISTS (SELECT FROM verdict_current c WHERE c.assessment_id = v.assessment_id)"
_OF_VERDICT = {
    "since": "v.recorded_at >= :since",
    "until": "v.recorded_at < :until",
    "rating": "v.rating = :rating",
    "category": "split_part(v.category, ':', 1) = :category",
    "score_from": "v.p_unsafe >= :score_from",
    "score_to": "v.p_unsafe <= :score_to",
    "current": _CURRENT,
}
# Where there is no verdict, the time that counts is that of the submission.
_OF_EITHER = {
    "since": "coalesce(v.recorded_at, a.created_at) >= :since",
    "until": "coalesce(v.recorded_at, a.created_at) < :until",
    "current": f"(v.assessment_id IS NULL AND a.reassesses IS NULL OR {_CURRENT})",
}

_VERDICTS = f"""
    SELECT {", ".join(f"{column.sql} AS {column.name}" for column in COLUMNS)}
    FROM verdict v JOIN assessment a ON a.id = v.assessment_id
    JOIN policy_revision r ON r.id = v.policy_revision_id
    WHERE a.purpose IS NULL AND {{where}} ORDER BY v.xid, v.seq
"""

_EVERYTHING = """
    FROM assessment a LEFT JOIN verdict v ON v.assessment_id = a.id
    JOIN policy_revision r ON r.id = a.policy_revision_id
    WHERE a.purpose IS NULL AND {where}
"""

STATES_WITHOUT = ("queued", "running", "failed", "cancelled")
_COUNTED = f"""
    count(*) AS total,
    count(*) FILTER (WHERE v.rating = 'Safe') AS safe,
    count(*) FILTER (WHERE v.rating = 'Unsafe') AS unsafe,
    count(*) FILTER (WHERE v.needs_review) AS needs_review,
    {
    ", ".join(
        f"count(*) FILTER (WHERE v.rating IS NULL AND a.state = '{state}') AS {state}"
        for state in STATES_WITHOUT
    )
}
"""

_TOTALS = f"SELECT {_COUNTED} {_EVERYTHING}"
_CATEGORIES = f"""
    SELECT v.category AS name, v.rating, count(*) AS n {_EVERYTHING} AND v.rating IS NOT NULL
    GROUP BY v.category, v.rating ORDER BY n DESC, name LIMIT :most
"""

# What stands before the last slash; a data URI has no folder, and neither has one that was cleared. A URI that may
# still be fetched may hold a password, which no report shows.
_SHOWN = "CASE WHEN a.state = 'done' THEN a.uri ELSE vetline_shown(a.uri) END"
_FOLDER = f"""
    CASE WHEN a.uri LIKE 'data:%' OR a.uri NOT LIKE '%/%' OR a.uri LIKE '%:{MARK}' THEN NULL
         WHEN a.uri LIKE 'http%' THEN regexp_replace(split_part(split_part({_SHOWN}, '?', 1), '#', 1), '/[^/]*$', '')
         ELSE regexp_replace({_SHOWN}, '/[^/]*$', '') END
"""
_GROUP = {"batch": "a.batch", "folder": _FOLDER, "metadata": "a.metadata ->> :label"}

# A group loses what is Unsafe among what was judged; it is emptied where nothing of it is Safe and nothing is open.
_GROUPS = f"""
    SELECT *, count(*) OVER () AS groups,
           count(*) FILTER (WHERE emptied) OVER () AS emptied_groups,
           count(*) FILTER (WHERE emptied OR share > :share) OVER () AS losing_groups
    FROM (
        SELECT *, coalesce(unsafe::float8 / nullif(safe + unsafe, 0), 0) AS share,
               safe = 0 AND queued = 0 AND running = 0 AS emptied
        FROM (SELECT {{group}} AS name, {_COUNTED} {_EVERYTHING} GROUP BY 1) counted
    ) judged
    ORDER BY emptied DESC, share DESC, total DESC, name LIMIT :most
"""


@contextmanager
def snapshot(engine: Engine) -> Iterator[Connection]:
    """One view of the ledger for all that is read in it, however long that takes. Nothing can be written."""
    with transaction(engine, patience_s=PATIENCE_S, isolation="REPEATABLE READ") as connection:
        connection.execute(text("SET TRANSACTION READ ONLY"))
        yield connection


def verdict_pages(
    connection: Connection, choice: ExportFilter, *, limit: int | None = None
) -> Generator[Page, None, None]:
    """The chosen verdicts in the order of their commits, as rows of COLUMNS, PAGE at a time. Close it when done."""
    where = _where(choice, _OF_ASSESSMENT | _OF_VERDICT)
    statement = _VERDICTS.format(where=where) + (" LIMIT :limit" if limit is not None else "")
    streamed = connection.execution_options(yield_per=PAGE)
    values = choice.values | ({"limit": limit} if limit is not None else {})
    with streamed.execute(text(statement), values) as result:
        yield from result.partitions(PAGE)


def totals(connection: Connection, choice: ExportFilter) -> dict[str, int]:
    """Assessments by rating, and those without a verdict by state. Rating, category and score do not narrow it."""
    return dict(_counted(connection, _TOTALS, choice)[0])


def categories(connection: Connection, choice: ExportFilter, *, most: int) -> list[dict[str, Any]]:
    """name, rating and n of each category, largest first."""
    return _counted(connection, _CATEGORIES, choice, most=most)


def groups(
    connection: Connection, choice: ExportFilter, by: str, *, share: float, most: int
) -> list[dict[str, Any]]:
    """The `most` groups that lose most, each with its counts, and with how many groups there are and how many lose.

    by: "batch", "folder", or "metadata:KEY". share: a group that loses more is counted in `losing_groups`.
    """
    kind, _, label = by.partition(":")
    statement = _GROUPS.replace("{group}", _GROUP[kind])
    values = {"share": share, "most": most} | ({"label": label} if kind == "metadata" else {})
    return _counted(connection, statement, choice, **values)


def _counted(
    connection: Connection, statement: str, choice: ExportFilter, **values: Any
) -> list[dict[str, Any]]:
    clauses = _OF_ASSESSMENT | _OF_EITHER
    bound = {name: value for name, value in choice.values.items() if name in clauses}
    rows = connection.execute(text(statement.format(where=_where(choice, clauses))), bound | values)
    return [dict(row) for row in rows.mappings()]


def _where(choice: ExportFilter, clauses: dict[str, str]) -> str:
    """Only what was asked for, so that Postgres plans for it."""
    return " AND ".join([clause for name, clause in clauses.items() if name in choice.values] or ["true"])

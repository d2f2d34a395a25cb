"""Retention: clears raw outputs and URIs once they are old. Rating, digests and policy of a verdict stay.

It walks the ids of assessments, which are in the order of time, a page in a transaction. So no lock is held longer
than a page, an interrupted walk keeps what it has done, and a second one finds nothing more to do.
"""

from collections.abc import Generator
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from uuid import UUID

from sqlalchemy import Engine, TextClause, text

from moderation.ledger.engine import transaction
from moderation.ledger.legal_holds import HELD, lock_holds
from moderation.redaction import MARK

_START = UUID(int=0)
_PATIENCE_S = 300.0  # of one page, which takes some 50 ms; a disk that is busy elsewhere takes its time


class ClearResult(StrEnum):
    """What is cleared, or would be but for a hold."""

    VERDICTS = "verdicts"  # raw outputs of verdicts
    ATTEMPTS = "attempts"  # raw answers of attempts
    URIS = "uris"
    HELD = "held"  # assessments that a hold keeps as they are


@dataclass(frozen=True, slots=True)
class MonthCount:
    """How many of a kind, of assessments that ended in a month. month: its first day, UTC."""

    month: date
    what: ClearResult
    n: int


# What is queued or running is not ended, however old; what was retried and ended again counts from then.
_WALK = f"""
    WITH page AS MATERIALIZED (
        SELECT id, batch, state, ended_at, cleared_at, uri FROM assessment
        WHERE id > :after AND id < :beyond ORDER BY id LIMIT :rows
    ), ended AS MATERIALIZED (
        SELECT a.id, a.cleared_at, a.uri, date_trunc('month', a.ended_at)::date AS month, {HELD} AS held
        FROM page a WHERE a.state IN ('done', 'failed', 'cancelled') AND a.ended_at < :before
    ), old AS (SELECT * FROM ended WHERE NOT held), {{changes}}
    SELECT (SELECT id FROM page ORDER BY id DESC LIMIT 1) AS last, counted.month, counted.what, counted.n
    FROM (SELECT 1) AS always LEFT JOIN (
        SELECT month, 'held' AS what, count(*) AS n FROM ended WHERE held GROUP BY month {{counts}}
    ) AS counted ON true
"""
_COUNT = " UNION ALL SELECT month, '{what}', count(*) FROM {what} GROUP BY month"

_OLD_VERDICTS = "v.assessment_id = old.id AND v.cleared_at IS NULL AND v.raw_output IS NOT NULL"
_OLD_ATTEMPTS = """t.assessment_id = old.id AND t.cleared_at IS NULL
    AND jsonb_path_exists(t.asks, '$[*].raw ? (@ != null)')"""
_OLD_URIS = "old.cleared_at IS NULL"

_RAW = f"""
    verdicts AS (
        UPDATE verdict v SET raw_output = NULL, cleared_at = now() FROM old WHERE {_OLD_VERDICTS} RETURNING old.month
    ), attempts AS (
        UPDATE attempt t SET asks = vetline_without_raw(t.asks), cleared_at = now()
        FROM old WHERE {_OLD_ATTEMPTS} RETURNING old.month
    )
"""
_RAW_TOLD = f"""
    verdicts AS (SELECT old.month FROM old JOIN verdict v ON {_OLD_VERDICTS}),
    attempts AS (SELECT old.month FROM old JOIN attempt t ON {_OLD_ATTEMPTS})
"""
# The scheme stays, and the mark by which others know that the rest is gone. Whoever retries it meanwhile comes first.
_URIS = f"""
    uris AS (
        UPDATE assessment a SET uri = split_part(a.uri, ':', 1) || ':{MARK}', cleared_at = now()
        FROM old WHERE a.id = old.id AND a.cleared_at IS NULL AND a.state IN ('done', 'failed', 'cancelled')
        RETURNING old.month
    )
"""
_URIS_TOLD = f"uris AS (SELECT old.month FROM old WHERE {_OLD_URIS})"


def _walk(changes: str, *what: ClearResult) -> TextClause:
    counts = "".join(_COUNT.format(what=one.value) for one in what)
    return text(_WALK.format(changes=changes, counts=counts))


_CLEAR_RAW = _walk(_RAW, ClearResult.VERDICTS, ClearResult.ATTEMPTS)
_TELL_RAW = _walk(_RAW_TOLD, ClearResult.VERDICTS, ClearResult.ATTEMPTS)
_CLEAR_URIS = _walk(_URIS, ClearResult.URIS)
_TELL_URIS = _walk(_URIS_TOLD, ClearResult.URIS)


def clear_raw(
    engine: Engine, before: datetime, *, rows: int, dry_run: bool = False
) -> Generator[list[MonthCount], None, None]:
    """Clear the raw outputs of what ended before a time, a page at a time; each page's counts once it is committed.

    rows: assessments of a page. dry_run: change nothing and count the same.
    """
    return _pages(engine, _TELL_RAW if dry_run else _CLEAR_RAW, before, rows)


def clear_uris(
    engine: Engine, before: datetime, *, rows: int, dry_run: bool = False
) -> Generator[list[MonthCount], None, None]:
    """The same for the URIs. What is cleared cannot be fetched again: neither retried nor judged anew."""
    return _pages(engine, _TELL_URIS if dry_run else _CLEAR_URIS, before, rows)


def _pages(
    engine: Engine, walk: TextClause, before: datetime, rows: int
) -> Generator[list[MonthCount], None, None]:
    after: UUID | None = _START
    # An assessment is older than its end, so the walk may stop at the ids of that time (UUIDv7: 48 bits of ms).
    beyond = UUID(int=(int(before.timestamp() * 1000) + 1) << 80)
    while after is not None:
        with transaction(engine, patience_s=_PATIENCE_S) as connection:
            lock_holds(connection)
            values = {"after": after, "beyond": beyond, "before": before, "rows": rows}
            page = connection.execute(walk, values).all()
        after = page[0].last
        if after is not None:
            yield [MonthCount(row.month, ClearResult(row.what), row.n) for row in page if row.what]

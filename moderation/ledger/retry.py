"""Retries what failed, and cancels what has not started. History is kept: attempts stay, and the fence keeps growing."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import Engine, TextClause, text

from moderation.ledger.engine import autocommit, transaction
from moderation.ledger.selection import SELECTED, Selection
from moderation.redaction import without_secrets

# What retention has cleared cannot be fetched any more.
_RETRYABLE = f"a.state = 'failed' AND a.cleared_at IS NULL AND {SELECTED}"

_COUNT = text(f"SELECT count(*) FROM assessment a WHERE {_RETRYABLE}")

_RETRYABLE_IDS = text(f"SELECT a.id FROM assessment a WHERE {_RETRYABLE}")

_RETRY = text(f"""
    WITH chosen AS (
        SELECT a.id FROM assessment a
        WHERE {_RETRYABLE} AND a.ended_at <= coalesce(CAST(:before AS timestamptz), now())
        ORDER BY a.ended_at LIMIT :limit FOR UPDATE SKIP LOCKED
    ), paced AS (
        SELECT id, now() + make_interval(
            secs => :first_s + (row_number() OVER () - 1) * CAST(:every_s AS double precision)
        ) AS at FROM chosen
    )
    UPDATE assessment a SET
        state = 'queued', charged = 0, crashes = 0, not_before = paced.at, ring_at = paced.at, ended_at = NULL
    FROM paced WHERE a.id = paced.id
    RETURNING a.id
""")

_CANCELLABLE = f"a.state = 'queued' AND {SELECTED}"

_COUNT_CANCELLABLE = text(f"SELECT count(*) FROM assessment a WHERE {_CANCELLABLE}")

_CANCELLABLE_IDS = text(f"SELECT a.id FROM assessment a WHERE {_CANCELLABLE}")

_CANCEL = text(f"""
    WITH chosen AS (
        SELECT a.id FROM assessment a WHERE {_CANCELLABLE} LIMIT :limit FOR UPDATE SKIP LOCKED
    )
    UPDATE assessment a SET state = 'cancelled', ring_at = NULL, rung_at = NULL, not_before = NULL, ended_at = now()
    FROM chosen WHERE a.id = chosen.id
    RETURNING a.id, a.uri
""")

# Nobody fetches it again, so what its URI opens is forgotten.
REDACT = text("""
    UPDATE assessment a SET uri = told.uri
    FROM unnest(CAST(:ids AS uuid[]), CAST(:uris AS text[])) AS told (id, uri)
    WHERE a.id = told.id AND a.state = 'cancelled'
""")


def count_retryable(engine: Engine, selection: Selection) -> int:
    """How many `retry_failed` would queue again."""
    with autocommit(engine) as connection:
        return int(connection.execute(_COUNT, selection.values()).scalar_one())


def retryable(engine: Engine, selection: Selection) -> set[UUID]:
    """Which `retry_failed` would queue again; for a selection that names ids, since it holds them all."""
    return _ids(engine, _RETRYABLE_IDS, selection)


def retry_failed(
    engine: Engine,
    selection: Selection,
    *,
    limit: int = 10_000,
    before: datetime | None = None,
    first_s: float = 0.0,
    every_s: float = 0.0,
) -> list[UUID]:
    """Queue up to `limit` failed assessments again, those that failed first first, with a fresh count of attempts.

    before: only what had failed by then, so that paging ends though items may fail again meanwhile.
    every_s: seconds between two of them becoming due, the first after first_s: a host that has just come back is not
    asked for all of them at once.
    """
    values = selection.values() | {"limit": limit, "before": before, "first_s": first_s, "every_s": every_s}
    with autocommit(engine) as connection:
        return list(connection.execute(_RETRY, values).scalars())


def count_cancellable(engine: Engine, selection: Selection) -> int:
    """How many `cancel_queued` would cancel."""
    with autocommit(engine) as connection:
        return int(connection.execute(_COUNT_CANCELLABLE, selection.values()).scalar_one())


def cancellable(engine: Engine, selection: Selection) -> set[UUID]:
    """Which `cancel_queued` would cancel; for a selection that names ids, since it holds them all."""
    return _ids(engine, _CANCELLABLE_IDS, selection)


def cancel_queued(engine: Engine, selection: Selection, *, limit: int = 10_000) -> list[UUID]:
    """Cancel up to `limit` assessments that no worker has claimed."""
    with transaction(engine) as connection:
        rows = connection.execute(_CANCEL, selection.values() | {"limit": limit}).all()
        shown_uris = {row.id: shown for row in rows if (shown := without_secrets(row.uri)) != row.uri}
        if shown_uris:
            connection.execute(REDACT, {"ids": list(shown_uris), "uris": list(shown_uris.values())})
    return [row.id for row in rows]


def _ids(engine: Engine, statement: TextClause, selection: Selection) -> set[UUID]:
    with autocommit(engine) as connection:
        return set(connection.execute(statement, selection.values()).scalars())

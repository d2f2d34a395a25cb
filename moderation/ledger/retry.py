"""Retry what failed, cancel what has not started. History is kept: attempts stay, the fence goes on growing."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Engine, text

from moderation.ledger.engine import reaching_postgres, transaction
from moderation.redaction import without_secrets


@dataclass(frozen=True, slots=True)
class Selection:
    """Which assessments a command means. Every field that is None leaves the choice open."""

    code: str | None = None
    batch: str | None = None
    policy: str | None = None
    ids: tuple[UUID, ...] = ()

    def values(self) -> dict[str, Any]:
        return {"code": self.code, "batch": self.batch, "policy": self.policy, "ids": list(self.ids)}


# The casts tell Postgres the type of a parameter that may be NULL.
SELECTED = """
    (CAST(:code AS text) IS NULL OR a.error_code = :code)
    AND (CAST(:batch AS text) IS NULL OR a.batch = :batch)
    AND (CAST(:policy AS text) IS NULL OR a.policy = :policy)
    AND (cardinality(CAST(:ids AS uuid[])) = 0 OR a.id = ANY(CAST(:ids AS uuid[])))
"""

_RETRY = text(f"""
    WITH chosen AS (
        SELECT a.id FROM assessment a
        WHERE a.state = 'failed' AND a.ended_at <= coalesce(CAST(:before AS timestamptz), now()) AND {SELECTED}
            AND a.cleared_at IS NULL -- its URI is gone
        LIMIT :limit FOR UPDATE SKIP LOCKED
    )
    UPDATE assessment a SET
        state = 'queued', charged = 0, crashes = 0, not_before = NULL, ring_at = now(), ended_at = NULL
    FROM chosen WHERE a.id = chosen.id
    RETURNING a.id
""")

_CANCEL = text(f"""
    WITH chosen AS (
        SELECT a.id FROM assessment a WHERE a.state = 'queued' AND {SELECTED} LIMIT :limit FOR UPDATE SKIP LOCKED
    )
    UPDATE assessment a SET state = 'cancelled', ring_at = NULL, rung_at = NULL, not_before = NULL, ended_at = now()
    FROM chosen WHERE a.id = chosen.id
    RETURNING a.id, a.uri
""")

# Nobody fetches it again, so what its URI opens is forgotten.
_REDACT = text("""
    UPDATE assessment a SET uri = told.uri
    FROM unnest(CAST(:ids AS uuid[]), CAST(:uris AS text[])) AS told (id, uri)
    WHERE a.id = told.id AND a.state = 'cancelled'
""")


def retry_failed(
    engine: Engine, selection: Selection, *, limit: int = 10_000, before: datetime | None = None
) -> list[UUID]:
    """Queue up to `limit` failed assessments again, with a fresh count of attempts.

    before: only what had failed by then, so that paging ends though items may fail again meanwhile.
    """
    values = selection.values() | {"limit": limit, "before": before}
    with reaching_postgres(), engine.connect() as connection:
        return list(connection.execute(_RETRY, values).scalars())


def cancel_queued(engine: Engine, selection: Selection, *, limit: int = 10_000) -> list[UUID]:
    """Cancel up to `limit` assessments that no worker has claimed."""
    with transaction(engine) as connection:
        rows = connection.execute(_CANCEL, selection.values() | {"limit": limit}).all()
        told = {row.id: shown for row in rows if (shown := without_secrets(row.uri)) != row.uri}
        if told:
            connection.execute(_REDACT, {"ids": list(told), "uris": list(told.values())})
    return [row.id for row in rows]

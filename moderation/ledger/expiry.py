"""Rows that wait past the time until which they may be claimed: cancelled, with the code `expired`."""

from sqlalchemy import Engine, text

from moderation.ledger.engine import reaching_postgres
from moderation.ledger.retry import REDACT
from moderation.redaction import without_secrets

_CANCEL = text("""
    WITH late AS (
        SELECT a.id FROM assessment a WHERE a.state = 'queued' AND a.expires_at <= now()
        ORDER BY a.expires_at LIMIT 1000 FOR UPDATE SKIP LOCKED
    )
    UPDATE assessment a SET
        state = 'cancelled', ring_at = NULL, rung_at = NULL, not_before = NULL, ended_at = now(),
        error_code = 'expired', error_detail = 'it waited until it expired'
    FROM late WHERE a.id = late.id
    RETURNING a.id, a.uri
""")


def cancel_expired(engine: Engine) -> int:
    """How many were cancelled; up to 1,000 at a time. What their URIs open is forgotten, as with every cancelled row."""
    with reaching_postgres(), engine.connect() as connection:
        rows = connection.execute(_CANCEL).all()
        if told := {row.id: shown for row in rows if (shown := without_secrets(row.uri)) != row.uri}:
            connection.execute(REDACT, {"ids": list(told), "uris": list(told.values())})
    return len(rows)

"""Manages webhook endpoints: add, list, pause, resume, remove, rotate secrets, and list what was set aside."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from pydantic_core import to_json
from sqlalchemy import Engine, text
from sqlalchemy.exc import IntegrityError

from moderation.cursor import Cursor
from moderation.errors import InvalidWebhook
from moderation.ledger.engine import autocommit, transaction
from moderation.ledger.feed import Filter
from moderation.ledger.submit import new_id

_ADD = text("""
    INSERT INTO webhook (id, name, url, filter, epoch, xid, seq, verified_epoch, verified_xid, verified_seq)
    VALUES (:id, :name, :url, CAST(:filter AS jsonb), :epoch, CAST(:xid AS xid8), :seq,
            :epoch, CAST(:xid AS xid8), :seq)
""")
_ADD_SECRET = text("INSERT INTO webhook_secret (webhook_id, secret) VALUES (:id, :secret)")
_RETIRE_SECRETS = text("""
    UPDATE webhook_secret SET valid_until = now() + make_interval(secs => :overlap_s)
    WHERE webhook_id = :id AND (valid_until IS NULL OR valid_until > now() + make_interval(secs => :overlap_s))
""")
_DROP_SECRETS = text("DELETE FROM webhook_secret WHERE webhook_id = :id AND valid_until < now()")
_SECRETS = text("""
    SELECT secret FROM webhook_secret
    WHERE webhook_id = :id AND (valid_until IS NULL OR valid_until > now()) ORDER BY created_at DESC
""")

_FIND = text("SELECT id, name, url FROM webhook WHERE name = :name")

# behind_s: as of consumers. A sum over what was set aside, which is little.
_LIST = text("""
    SELECT w.id, w.name, w.url, w.filter, w.epoch, w.xid::text AS place_xid, w.seq, w.failures, w.failing_since,
           w.last_error, w.delivered, w.delivered_at, w.paused_at, w.paused_because, w.created_at, w.due_at,
           (SELECT count(*) FROM webhook_set_aside s WHERE s.webhook_id = w.id) AS set_aside,
           extract(epoch FROM now() - next.recorded_at)::float AS behind_s
    FROM webhook w LEFT JOIN LATERAL (
        SELECT v.recorded_at FROM verdict v
        WHERE (v.xid, v.seq) > (w.xid, w.seq) AND v.epoch = w.epoch ORDER BY v.xid, v.seq LIMIT 1
    ) AS next ON true
    ORDER BY w.name
""")

_PAUSE = text("""
    UPDATE webhook SET paused_at = coalesce(paused_at, now()), paused_because = :because WHERE name = :name RETURNING id
""")
_RESUME = text("""
    UPDATE webhook SET paused_at = NULL, paused_because = NULL, failures = 0, failing_since = NULL, due_at = now(),
        rung_at = NULL
    WHERE name = :name RETURNING id
""")
_REMOVE = text("DELETE FROM webhook WHERE name = :name RETURNING id")

_SET_ASIDE = text("""
    SELECT s.assessment_id, s.tries, s.error, s.set_aside_at, s.retry_asked_at
    FROM webhook_set_aside s JOIN webhook w ON w.id = s.webhook_id
    WHERE w.name = :name ORDER BY s.set_aside_at LIMIT :limit
""")
_RETRY = text("""
    UPDATE webhook_set_aside s SET retry_asked_at = now() FROM webhook w
    WHERE w.id = s.webhook_id AND w.name = :name
        AND (CAST(:ids AS uuid[]) IS NULL OR s.assessment_id = ANY(:ids))
    RETURNING s.assessment_id
""")
_DUE_NOW = text("UPDATE webhook SET due_at = least(due_at, now()), rung_at = NULL WHERE name = :name")


@dataclass(frozen=True, slots=True)
class Endpoint:
    id: UUID
    name: str
    url: str


def add_webhook(
    engine: Engine, name: str, url: str, *, secret: str, wanted: Filter, start: Cursor
) -> Endpoint:
    """Send every verdict after `start` that passes the filter to this URL. Raises InvalidWebhook for a name in use."""
    endpoint = Endpoint(new_id(), name, url)
    place = {"epoch": start.epoch, "xid": str(start.xid), "seq": start.seq}
    values = {"id": endpoint.id, "name": name, "url": url, "filter": to_json(wanted.criteria()).decode()}
    try:
        with transaction(engine) as connection:
            connection.execute(_ADD, values | place)
            connection.execute(_ADD_SECRET, {"id": endpoint.id, "secret": secret})
    except IntegrityError:
        raise InvalidWebhook(f"there is a webhook named {name} already") from None
    return endpoint


def find_webhook(engine: Engine, name: str) -> Endpoint:
    """Raises InvalidWebhook where there is none of this name."""
    with autocommit(engine) as connection:
        row = connection.execute(_FIND, {"name": name}).one_or_none()
    if row is None:
        raise _unknown(name)
    return Endpoint(row.id, row.name, row.url)


def webhooks(engine: Engine) -> list[dict[str, Any]]:
    """Every endpoint, without its secrets."""
    with autocommit(engine) as connection:
        rows = [dict(row) for row in connection.execute(_LIST).mappings()]
    for row in rows:
        row["cursor"] = str(Cursor(row.pop("epoch"), int(row.pop("place_xid")), row.pop("seq")))
    return rows


def pause(engine: Engine, name: str, *, because: str) -> None:
    """Send nothing more; the place stays."""
    _change(engine, _PAUSE, {"name": name, "because": because})


def resume(engine: Engine, name: str) -> None:
    """Go on at its place, at once, with a fresh day to succeed in."""
    _change(engine, _RESUME, {"name": name})


def remove(engine: Engine, name: str) -> None:
    """Forget the endpoint, its secrets, its place and what was set aside."""
    _change(engine, _REMOVE, {"name": name})


def replace_secret(engine: Engine, name: str, secret: str, *, overlap_s: float) -> None:
    """Sign with a new secret, and with those before it for so long as well."""
    with transaction(engine) as connection:
        row = connection.execute(_FIND, {"name": name}).one_or_none()
        if row is None:
            raise _unknown(name)
        connection.execute(_DROP_SECRETS, {"id": row.id})
        connection.execute(_RETIRE_SECRETS, {"id": row.id, "overlap_s": overlap_s})
        connection.execute(_ADD_SECRET, {"id": row.id, "secret": secret})


def secrets_of(engine: Engine, id_: UUID) -> list[str]:
    """The secrets that are valid now, the newest first."""
    with autocommit(engine) as connection:
        return list(connection.execute(_SECRETS, {"id": id_}).scalars())


def set_aside(engine: Engine, name: str, *, limit: int = 1000) -> list[dict[str, Any]]:
    """Verdicts that the endpoint did not take, oldest first."""
    find_webhook(engine, name)
    with autocommit(engine) as connection:
        return [
            dict(row) for row in connection.execute(_SET_ASIDE, {"name": name, "limit": limit}).mappings()
        ]


def retry_set_aside(engine: Engine, name: str, ids: list[UUID] | None = None) -> int:
    """Send these again, or all; how many. Each is tried once more, behind what was asked for earlier."""
    find_webhook(engine, name)
    with transaction(engine) as connection:
        count = len(connection.execute(_RETRY, {"name": name, "ids": ids}).all())
        connection.execute(_DUE_NOW, {"name": name})
    return count


def _change(engine: Engine, statement: Any, values: dict[str, Any]) -> None:
    with autocommit(engine) as connection:
        if connection.execute(statement, values).one_or_none() is None:
            raise _unknown(values["name"])


def _unknown(name: str) -> InvalidWebhook:
    return InvalidWebhook(f"there is no webhook named {name}")

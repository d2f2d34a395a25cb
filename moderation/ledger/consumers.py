"""Named consumers: how far each has read, and which process may read under its name.

A name is held by a lease with a fence, as a claim is. An advisory lock would be lost through a pooler that hands
connections out by transaction, and kept by a process that froze. SKIP LOCKED would let several processes read at
once, but in no order. So one process reads and the others stand by. What it does not acknowledge within its lease
goes to the next.
"""

from dataclasses import dataclass
from typing import Any

from pydantic_core import to_json
from sqlalchemy import Engine, Row, text

from moderation.cursor import Cursor
from moderation.errors import ConsumerTaken, InvalidConsumer
from moderation.ledger.engine import autocommit
from moderation.ledger.feed import Filter

_ADD = text("""
    INSERT INTO consumer (name, filter, epoch, xid, seq, verified_epoch, verified_xid, verified_seq)
    VALUES (:name, CAST(:filter AS jsonb), :epoch, CAST(:xid AS xid8), :seq, :epoch, CAST(:xid AS xid8), :seq)
    ON CONFLICT DO NOTHING
""")

_FILTER = text("SELECT filter FROM consumer WHERE name = :name")

_TAKE = text("""
    UPDATE consumer SET
        fence = fence + 1, holder = :holder, lease_until = clock_timestamp() + make_interval(secs => :lease_s)
    WHERE name = :name AND (lease_until IS NULL OR lease_until < clock_timestamp())
    RETURNING fence, epoch, xid::text AS place_xid, seq, given
""")

# given is set, not added to: an acknowledgement whose answer was lost is repeated, and must count once.
_ACKNOWLEDGE = text("""
    UPDATE consumer SET
        epoch = :epoch, xid = CAST(:xid AS xid8), seq = :seq, given = :given,
        acknowledged_at = now(),
        lease_until = clock_timestamp() + make_interval(secs => :lease_s)
    WHERE name = :name AND fence = :fence AND (epoch, xid, seq) <= (:epoch, CAST(:xid AS xid8), :seq)
    RETURNING fence
""")

_RELEASE = text("UPDATE consumer SET lease_until = NULL, holder = NULL WHERE name = :name AND fence = :fence")

# Whoever reads under the name finds its fence gone. What lies before the new place is nobody's business any more.
_MOVE = text("""
    UPDATE consumer SET
        epoch = :epoch, xid = CAST(:xid AS xid8), seq = :seq, fence = fence + 1, lease_until = NULL, holder = NULL,
        verified_epoch = :epoch, verified_xid = CAST(:xid AS xid8), verified_seq = :seq, verified_given = given
    WHERE name = :name RETURNING name
""")

_REMOVE = text("DELETE FROM consumer WHERE name = :name RETURNING name")

# behind_s: how long ago the first verdict that it has not come to was recorded, whether or not it passes the filter.
_LIST = text("""
    SELECT c.name, c.filter, c.epoch, c.xid::text AS place_xid, c.seq, c.created_at, c.acknowledged_at,
           CASE WHEN c.lease_until > now() THEN c.holder END AS read_by,
           extract(epoch FROM now() - next.recorded_at)::float AS behind_s
    FROM consumer c LEFT JOIN LATERAL (
        SELECT v.recorded_at FROM verdict v
        WHERE (v.xid, v.seq) > (c.xid, c.seq) AND v.epoch = c.epoch ORDER BY v.xid, v.seq LIMIT 1
    ) AS next ON true
    ORDER BY c.name
""")


@dataclass(frozen=True, slots=True)
class ConsumerLease:
    """The right to read under a consumer's name, until its lease ends. fence: names this taking of it.

    given: verdicts given out under the name and acknowledged, until it was taken.
    """

    name: str
    fence: int
    lease_s: float
    given: int


def add_consumer(engine: Engine, name: str, wanted: Filter, start: Cursor) -> None:
    """Make the consumer, to begin after `start`, unless there is one of this name: that one keeps its place.

    Raises InvalidConsumer where that one stands for another filter: its place says nothing about what this one wants.
    """
    values = {"name": name, "filter": to_json(wanted.criteria()).decode()} | _place(start)
    with autocommit(engine) as connection:
        connection.execute(_ADD, values)
        stored = Filter(**connection.execute(_FILTER, {"name": name}).scalar_one())
    if stored != wanted:
        words = ", ".join(f"{key}={value}" for key, value in stored.criteria().items()) or "everything"
        raise InvalidConsumer(f"the consumer {name} reads {words}; take another name for another filter")


def take(engine: Engine, name: str, *, holder: str, lease_s: float) -> tuple[ConsumerLease, Cursor] | None:
    """The right to read and the place to go on from; None while another process has it."""
    with autocommit(engine) as connection:
        row = connection.execute(_TAKE, {"name": name, "holder": holder, "lease_s": lease_s}).one_or_none()
    return None if row is None else (ConsumerLease(name, row.fence, lease_s, row.given), _cursor(row))


def acknowledge(engine: Engine, reader: ConsumerLease, upto: Cursor, *, given: int) -> None:
    """Keep this place and renew the lease. Raises ConsumerTaken where another process has the name by now.

    given: verdicts given out under the name up to this place, those of `reader.given` included.
    """
    values = {"name": reader.name, "fence": reader.fence, "lease_s": reader.lease_s, "given": given} | _place(
        upto
    )
    with autocommit(engine) as connection:
        if connection.execute(_ACKNOWLEDGE, values).one_or_none() is None:
            raise ConsumerTaken(f"another process reads as {reader.name} by now, or its place was moved")


def release(engine: Engine, reader: ConsumerLease) -> None:
    """Let another process read at once."""
    with autocommit(engine) as connection:
        connection.execute(_RELEASE, {"name": reader.name, "fence": reader.fence})


def move(engine: Engine, name: str, to: Cursor) -> None:
    """Set a consumer's place, back or forth; a process that reads under its name begins there."""
    _change(engine, _MOVE, name, _place(to))


def remove(engine: Engine, name: str) -> None:
    """Forget a consumer and its place."""
    _change(engine, _REMOVE, name, {})


def consumers(engine: Engine) -> list[dict[str, Any]]:
    """Every consumer: its filter, its place, who reads under its name, and how far it is behind, in seconds."""
    with autocommit(engine) as connection:
        rows = connection.execute(_LIST).mappings().all()
    return [_listed(dict(row)) for row in rows]


def _change(engine: Engine, statement: Any, name: str, values: dict[str, Any]) -> None:
    with autocommit(engine) as connection:
        if connection.execute(statement, {"name": name} | values).one_or_none() is None:
            raise InvalidConsumer(f"there is no consumer named {name}")


def _listed(row: dict[str, Any]) -> dict[str, Any]:
    cursor = Cursor(row.pop("epoch"), int(row.pop("place_xid")), row.pop("seq"))
    return row | {"cursor": str(cursor)}


def _place(cursor: Cursor) -> dict[str, Any]:
    return {"epoch": cursor.epoch, "xid": str(cursor.xid), "seq": cursor.seq}


def _cursor(row: Row[Any]) -> Cursor:
    return Cursor(row.epoch, int(row.place_xid), row.seq)

"""Delivery leases on an endpoint: which endpoints are due, who holds one, and the result of each delivery.

An endpoint has one lease at a time, so its verdicts go out in order. The lease has a fence, as a claim does: a sender
that froze or died loses it, and what it writes later finds no row. A verdict counts as delivered once that is
committed. One whose sender died before the commit is sent again, under the same id.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Engine, Row, text

from moderation.cursor import Cursor
from moderation.ledger.engine import autocommit, transaction
from moderation.ledger.feed import Filter

# What is due: an endpoint whose time has come and that has something in the feed or asked for again. A message that was
# not answered in a while is taken for lost.
_DUE = text("""
    UPDATE webhook SET rung_at = now() WHERE id IN (
        SELECT w.id FROM webhook w
        WHERE w.paused_at IS NULL AND w.due_at <= now() AND (w.lease_until IS NULL OR w.lease_until < now())
            AND (w.rung_at IS NULL OR w.rung_at < now() - make_interval(secs => :ring_again_s))
            AND (
                EXISTS (SELECT FROM webhook_set_aside s WHERE s.webhook_id = w.id AND s.retry_asked_at IS NOT NULL)
                OR w.epoch < (SELECT max(epoch) FROM feed_epoch)
                OR EXISTS (
                    SELECT FROM verdict v WHERE (v.xid, v.seq) > (w.xid, w.seq) AND v.epoch = w.epoch
                        AND v.xid < pg_snapshot_xmin(pg_current_snapshot())
                )
            )
        FOR UPDATE SKIP LOCKED
    )
    RETURNING id
""")

_TAKE = text("""
    UPDATE webhook SET
        fence = fence + 1, holder = :holder, rung_at = NULL,
        lease_until = clock_timestamp() + make_interval(secs => :lease_s)
    WHERE id = :id AND paused_at IS NULL AND due_at <= now() AND (lease_until IS NULL OR lease_until < now())
    RETURNING id, name, url, filter, fence, epoch, xid::text AS place_xid, seq, failures
""")

_HELD = "id = :id AND fence = :fence AND paused_at IS NULL"

_MOVED = f"""
    UPDATE webhook SET
        epoch = :epoch, xid = CAST(:xid AS xid8), seq = :seq, {{more}},
        lease_until = clock_timestamp() + make_interval(secs => :lease_s)
    WHERE {_HELD}
    RETURNING id
"""
_WELL = (
    "failures = 0, failing_since = NULL, last_error = NULL, delivered = delivered + 1, delivered_at = now()"
)
_DELIVERED = text(_MOVED.format(more=f"{_WELL}, given = given + 1"))
_PASSED_OVER = text(_MOVED.format(more="holder = holder"))

_DELIVERED_AGAIN = text(f"""
    WITH held AS (
        UPDATE webhook SET {_WELL}, lease_until = clock_timestamp() + make_interval(secs => :lease_s)
        WHERE {_HELD} RETURNING id
    )
    DELETE FROM webhook_set_aside s USING held
    WHERE s.webhook_id = held.id AND s.assessment_id = :assessment_id RETURNING s.assessment_id
""")
_ASKED_AGAIN = text("""
    SELECT assessment_id FROM webhook_set_aside
    WHERE webhook_id = :id AND retry_asked_at IS NOT NULL ORDER BY retry_asked_at, set_aside_at LIMIT 100
""")
_REFUSED_AGAIN = text("""
    UPDATE webhook_set_aside SET retry_asked_at = NULL, tries = tries + 1, error = :error
    WHERE webhook_id = :id AND assessment_id = :assessment_id
""")

# The day is counted from the first failure of a row of them: an endpoint that is down for longer keeps its place, and
# only what it is probed with is set aside.
_FAILED = text(f"""
    UPDATE webhook SET
        failures = failures + 1, failing_since = coalesce(failing_since, now()), last_error = :error,
        due_at = now() + make_interval(secs => :delay_s), lease_until = NULL, holder = NULL,
        paused_at = CASE WHEN :gone THEN now() END, paused_because = CASE WHEN :gone THEN :error END
    WHERE {_HELD}
    RETURNING failures, failing_since < now() - make_interval(secs => :give_up_s) AS given_up
""")
_ASIDE = text("""
    WITH moved AS (
        UPDATE webhook SET epoch = :epoch, xid = CAST(:xid AS xid8), seq = :seq, given = given + 1
        WHERE id = :id AND fence = :fence
        RETURNING id
    )
    INSERT INTO webhook_set_aside (webhook_id, assessment_id, tries, error)
    SELECT id, :assessment_id, :tries, :error FROM moved
    ON CONFLICT (webhook_id, assessment_id) DO UPDATE SET error = excluded.error, retry_asked_at = NULL
""")

_RELEASE = text("UPDATE webhook SET lease_until = NULL, holder = NULL WHERE id = :id AND fence = :fence")


@dataclass(frozen=True, slots=True)
class DeliveryLease:
    """The right to send to an endpoint until its lease ends. place: up to where it was sent. failures: in a row."""

    id: UUID
    name: str
    url: str
    wanted: Filter
    fence: int
    place: Cursor
    failures: int
    lease_s: float


def due(engine: Engine, *, ring_again_s: float) -> list[UUID]:
    """Endpoints to ring now. Each is named once, until its lease is taken or ring_again_s have passed."""
    with autocommit(engine) as connection:
        return list(connection.execute(_DUE, {"ring_again_s": ring_again_s}).scalars())


def take(engine: Engine, id_: UUID, *, holder: str, lease_s: float) -> DeliveryLease | None:
    """A lease on this endpoint; None where somebody has it, it is paused, not due, or gone."""
    with autocommit(engine) as connection:
        row = connection.execute(_TAKE, {"id": id_, "holder": holder, "lease_s": lease_s}).one_or_none()
    return None if row is None else _lease(row, lease_s)


def delivered(engine: Engine, lease: DeliveryLease, place: Cursor) -> bool:
    """Keep that everything up to this place was delivered. False where the lease was lost, or the endpoint paused."""
    return _move(engine, _DELIVERED, lease, place)


def passed_over(engine: Engine, lease: DeliveryLease, place: Cursor) -> bool:
    """Keep a place behind verdicts that do not pass the filter. As `delivered`."""
    return _move(engine, _PASSED_OVER, lease, place)


def failed(
    engine: Engine,
    lease: DeliveryLease,
    error: str,
    *,
    delay_s: float,
    give_up_s: float,
    gone: bool = False,
    at: tuple[Cursor, UUID] | None = None,
) -> bool:
    """End the round with a failure, due again after delay_s. Whether the verdict was set aside, and its place passed.

    at: the verdict's place and id; None for one that was set aside before.
    gone: the endpoint is not to be asked again: pause it.
    """
    held = {"id": lease.id, "fence": lease.fence}
    with transaction(engine) as connection:
        row = connection.execute(
            _FAILED, held | {"error": error, "delay_s": delay_s, "give_up_s": give_up_s, "gone": gone}
        ).one_or_none()
        if row is None or at is None or not row.given_up or gone:
            return False
        place, assessment = at
        connection.execute(
            _ASIDE,
            held | _place(place) | {"assessment_id": assessment, "tries": row.failures, "error": error},
        )
        return True


def asked_again(engine: Engine, lease: DeliveryLease) -> Sequence[UUID]:
    """Verdicts that were set aside and are to be sent again, in the order in which that was asked."""
    with autocommit(engine) as connection:
        return connection.execute(_ASKED_AGAIN, {"id": lease.id}).scalars().all()


def delivered_again(engine: Engine, lease: DeliveryLease, assessment: UUID) -> bool:
    """It is set aside no more. False where the lease was lost."""
    values = {"id": lease.id, "fence": lease.fence, "lease_s": lease.lease_s, "assessment_id": assessment}
    with autocommit(engine) as connection:
        return connection.execute(_DELIVERED_AGAIN, values).one_or_none() is not None


def refused_again(engine: Engine, lease: DeliveryLease, assessment: UUID, error: str) -> None:
    """It stays set aside, until it is asked for again."""
    with autocommit(engine) as connection:
        connection.execute(_REFUSED_AGAIN, {"id": lease.id, "assessment_id": assessment, "error": error})


def release(engine: Engine, lease: DeliveryLease) -> None:
    """End a round in which nothing failed."""
    with autocommit(engine) as connection:
        connection.execute(_RELEASE, {"id": lease.id, "fence": lease.fence})


def _move(engine: Engine, statement: Any, lease: DeliveryLease, place: Cursor) -> bool:
    values = {"id": lease.id, "fence": lease.fence, "lease_s": lease.lease_s} | _place(place)
    with autocommit(engine) as connection:
        return connection.execute(statement, values).one_or_none() is not None


def _place(cursor: Cursor) -> dict[str, Any]:
    return {"epoch": cursor.epoch, "xid": str(cursor.xid), "seq": cursor.seq}


def _lease(row: Row[Any], lease_s: float) -> DeliveryLease:
    place = Cursor(row.epoch, int(row.place_xid), row.seq)
    return DeliveryLease(
        row.id, row.name, row.url, Filter(**row.filter), row.fence, place, row.failures, lease_s
    )

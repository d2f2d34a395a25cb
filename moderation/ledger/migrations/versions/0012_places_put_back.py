"""Puts the places of consumers and webhooks back to where release 0.1.0 may have lost verdicts; counts what is given.

0.1.0 ordered transaction ids as texts, both where it looked for the last verdict of a window and where it read the
verdicts of it. A window that held ids on both sides of a power of ten was given out in part and in the wrong order, and
the place went to its end, or to the end of the feed. So whatever was lost was in a window with the first power of ten
that the place crossed, or came later. A window has a bounded number of verdicts: the place is put back by so many
before that power, but not to before what it had to read. A place that crossed none stays. Whoever holds a lease finds
the fence gone: what it read before is not acknowledged any more.

Attributes of Alembic's configuration: `keep_places` (bool) leaves every place; `places` (list) is given a dict for
each that was put back or would have been. Once: it runs as this migration does, in its transaction.

Works while the previous release runs: the columns may be left out. But what it acknowledges counts as not given out,
and it can lose verdicts at the next power of ten: its readers are to be stopped first, or `verify` run afterwards.
"""

from typing import Any

from alembic import op
from sqlalchemy import Connection, text

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

# given: verdicts given out (webhooks: delivered or set aside) since they are counted. verified_*: up to this place, and
# to this count of them, all that passes the filter is known to be given out; no place: nothing is known.
COUNTED = """
ALTER TABLE {table}
    ADD COLUMN given bigint NOT NULL DEFAULT 0,
    ADD COLUMN verified_epoch integer,
    ADD COLUMN verified_xid xid8,
    ADD COLUMN verified_seq bigint,
    ADD COLUMN verified_given bigint NOT NULL DEFAULT 0
"""

# A consumer that never acknowledged is where it began.
PLACES = text("""
    SELECT 'consumer' AS kind, name, filter, epoch, xid::text AS place_xid, seq,
           acknowledged_at IS NOT NULL AS moved, NULL::timestamptz AS added_at, NULL::bigint AS given_out
    FROM consumer
    UNION ALL
    SELECT 'webhook', w.name, w.filter, w.epoch, w.xid::text, w.seq,
           true, w.created_at, w.delivered + (SELECT count(*) FROM webhook_set_aside s WHERE s.webhook_id = w.id)
    FROM webhook w
    ORDER BY kind, name
""")

# The first verdict of each epoch that was there to be read. since: when it was recorded at the earliest.
FIRSTS = text("""
    SELECT e.epoch, first.xid::text AS first_xid FROM feed_epoch e CROSS JOIN LATERAL (
        SELECT v.xid FROM verdict v
        WHERE v.epoch = e.epoch AND (CAST(:since AS timestamptz) IS NULL OR v.recorded_at >= :since)
        ORDER BY v.xid, v.seq LIMIT 1
    ) AS first
    WHERE e.epoch <= :epoch ORDER BY e.epoch
""")

CROSSED = text("""
    SELECT EXISTS (
        SELECT FROM verdict v WHERE v.epoch = :in_epoch AND v.xid >= CAST(:power AS xid8)
            AND (v.epoch, v.xid, v.seq) <= (:epoch, CAST(:xid AS xid8), :seq)
    )
""")

BEFORE = text("""
    SELECT v.xid::text AS before_xid, v.seq AS before_seq FROM verdict v
    WHERE v.epoch = :in_epoch AND v.xid < CAST(:power AS xid8)
    ORDER BY v.xid DESC, v.seq DESC OFFSET :window LIMIT 1
""")

# At most so many verdicts were in a window: the largest VETLINE_FEED_BATCH_SIZE, and a webhook's page. With a filter
# twenty were looked at for each that was wanted.
WINDOW = {"consumer": 10_000, "webhook": 50}
LOOK_AT = 20

# A webhook begins at what is there when it is added, unless it was told another place. What an open transaction held
# back then was recorded earlier, and was still to be sent: some minutes more than such a transaction takes.
EARLIER = "interval '10 minutes'"
EXIST = text(f"""
    SELECT count(*) AS ever,
           count(*) FILTER (WHERE v.recorded_at >= :added_at) AS since_added,
           count(*) FILTER (WHERE v.recorded_at >= :added_at - {EARLIER}) AS since_earlier,
           CAST(:added_at AS timestamptz) - {EARLIER} AS earlier
    FROM verdict v JOIN assessment a ON a.id = v.assessment_id JOIN policy_revision r ON r.id = v.policy_revision_id
    WHERE (v.epoch, v.xid, v.seq) <= (:epoch, CAST(:xid AS xid8), :seq)
        AND (CAST(:policy AS text) IS NULL OR r.policy = :policy OR r.policy || '@' || r.revision = :policy)
        AND (CAST(:rating AS text) IS NULL OR v.rating = :rating)
        AND (CAST(:category AS text) IS NULL OR v.category = :category OR split_part(v.category, ':', 1) = :category)
        AND (CAST(:batch AS text) IS NULL OR a.batch = :batch)
""")

PUT_BACK = """
    UPDATE {table} SET
        epoch = :epoch, xid = CAST(:xid AS xid8), seq = :seq, fence = fence + 1, lease_until = NULL, holder = NULL
    WHERE name = :name
"""
VERIFIED = (
    "UPDATE {table} SET verified_epoch = epoch, verified_xid = xid, verified_seq = seq WHERE name = :name"
)

NO_FILTER = dict.fromkeys(("policy", "rating", "category", "batch"))
TABLES = ("consumer", "webhook")
Place = dict[str, Any]


def upgrade() -> None:
    for table in TABLES:
        op.execute(COUNTED.format(table=table))
    connection, config = op.get_bind(), op.get_context().config
    attributes: dict[str, Any] = {} if config is None else config.attributes
    for row in connection.execute(PLACES).mappings().all():
        place = {"epoch": row["epoch"], "xid": row["place_xid"], "seq": row["seq"]}
        back = _lost_after(connection, row, place) if row["moved"] else None
        kept = back is not None and bool(attributes.get("keep_places"))
        if back is not None:
            told = {"kind": row["kind"], "name": row["name"], "filter": row["filter"]}
            attributes.setdefault("places", []).append(told | {"was": place, "back": back, "kept": kept})
        if back is not None and not kept:
            connection.execute(text(PUT_BACK.format(table=row["kind"])), back | {"name": row["name"]})
        if not kept:  # else nothing is known of what lies before it
            connection.execute(text(VERIFIED.format(table=row["kind"])), {"name": row["name"]})


def _lost_after(connection: Connection, row: Any, place: Place) -> Place | None:
    """The place up to which nothing was lost; None where nothing was."""
    window = WINDOW[row["kind"]] * (LOOK_AT if row["filter"] else 1)
    back = _before_the_first_power(connection, place, window, None)
    if back is None or row["added_at"] is None:
        return back
    wanted = NO_FILTER | row["filter"]
    there = connection.execute(EXIST, place | wanted | {"added_at": row["added_at"]}).one()
    given = row["given_out"]
    all_since_added = given == there.since_added == there.since_earlier
    if given == there.ever or all_since_added:
        return None
    if given > there.since_earlier:  # it began before it was added
        return back
    return _before_the_first_power(connection, place, window, there.earlier)


def _before_the_first_power(connection: Connection, place: Place, window: int, since: Any) -> Place | None:
    """A window before the first power of ten that a reader of all this crossed; None: it crossed none."""
    for first in connection.execute(FIRSTS, {"epoch": place["epoch"], "since": since}).all():
        power = 10 ** len(first.first_xid)
        at = {"in_epoch": first.epoch, "power": str(power), "window": window}
        if power < 2**64 and connection.execute(CROSSED, place | at).scalar_one():
            return _back(first, connection.execute(BEFORE, at).one_or_none())
    return None


def _back(first: Any, before: Any) -> Place:
    """Behind this row, but not before the first that was there to be read."""
    if before is None or int(before.before_xid) < int(first.first_xid):
        return {"epoch": first.epoch, "xid": first.first_xid, "seq": 0}
    return {"epoch": first.epoch, "xid": before.before_xid, "seq": before.before_seq}


def downgrade() -> None:
    for table in TABLES:
        op.execute(
            f"ALTER TABLE {table} DROP COLUMN given, DROP COLUMN verified_epoch, DROP COLUMN verified_xid,"
            " DROP COLUMN verified_seq, DROP COLUMN verified_given"
        )

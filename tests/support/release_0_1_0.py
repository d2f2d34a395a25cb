"""Consumers and webhooks as release 0.1.0 left them: its statements, word for word, and the places that it kept.

They order transaction ids as texts: `ORDER BY xid` means the output column `xid::text`.
"""

import json
from dataclasses import dataclass, field
from uuid import UUID

from sqlalchemy import Connection, text

from moderation.cursor import START, Cursor

_LIMITS = """
    SELECT pg_snapshot_xmin(pg_current_snapshot()) AS settled, pg_snapshot_xmax(pg_current_snapshot()) AS ahead,
           newest.epoch, newest.system_identifier, NOT pg_is_in_recovery() AS primary
    FROM (SELECT epoch, system_identifier FROM feed_epoch ORDER BY epoch DESC LIMIT 1) AS newest
"""
_WINDOW = text(f"""
    WITH limits AS MATERIALIZED ({_LIMITS}), bound AS MATERIALIZED (
        SELECT CASE WHEN :epoch < epoch THEN xid8 '18446744073709551615' ELSE settled END AS below FROM limits
    ), looked_at AS MATERIALIZED (
        SELECT v.xid, v.seq FROM bound b, verdict v
        WHERE (v.xid, v.seq) > (CAST(:xid AS xid8), :seq) AND v.xid < b.below AND v.epoch = :epoch
        ORDER BY v.xid, v.seq LIMIT :look_at
    )
    SELECT l.settled::text, l.epoch, (SELECT count(*) FROM looked_at) AS n,
           (SELECT xid::text FROM looked_at ORDER BY xid DESC LIMIT 1) AS last_xid,
           (SELECT seq FROM looked_at ORDER BY xid DESC, seq DESC LIMIT 1) AS last_seq
    FROM limits l
""")
_READ = text("""
    SELECT epoch, xid::text, seq, assessment_id, key FROM feed
    WHERE epoch = :epoch AND (xid, seq) > (CAST(:xid AS xid8), :seq) AND (xid, seq) <= (CAST(:to_xid AS xid8), :to_seq)
        AND (CAST(:rating AS text) IS NULL OR rating = :rating)
    ORDER BY xid, seq LIMIT :limit
""")
_ACKNOWLEDGE = text("""
    UPDATE consumer SET
        epoch = :epoch, xid = CAST(:xid AS xid8), seq = :seq,
        acknowledged_at = now(),
        lease_until = clock_timestamp() + make_interval(secs => :lease_s)
    WHERE name = :name AND fence = :fence AND (epoch, xid, seq) <= (:epoch, CAST(:xid AS xid8), :seq)
    RETURNING fence
""")
_ADD = text("""
    INSERT INTO consumer (name, filter, epoch, xid, seq)
    VALUES (:name, CAST(:filter AS jsonb), :epoch, CAST(:xid AS xid8), :seq)
    ON CONFLICT DO NOTHING
""")
_ADD_WEBHOOK = text("""
    INSERT INTO webhook (id, name, url, filter, epoch, xid, seq)
    VALUES (gen_random_uuid(), :name, :url, CAST(:filter AS jsonb), :epoch, CAST(:xid AS xid8), :seq) RETURNING id
""")
_ADD_SECRET = text("INSERT INTO webhook_secret (webhook_id, secret) VALUES (:id, :secret)")
_DELIVERED = text("""
    UPDATE webhook SET epoch = :epoch, xid = CAST(:xid AS xid8), seq = :seq, delivered = delivered + :more,
        delivered_at = now() WHERE name = :name
""")
_END = text("SELECT epoch, settled::text FROM (" + _LIMITS + ") AS limits")


@dataclass
class OldReader:
    """One consumer or webhook of the old release. given: the keys that it was given, in that order."""

    name: str
    place: Cursor = START
    rating: str | None = None
    limit: int = 500
    given: list[str] = field(default_factory=list)

    def read_all(self, connection: Connection) -> int:
        """Read to the end of the feed, as `Feed.batches(follow=False)` does; how many verdicts came."""
        before = len(self.given)
        while not self._read_page(connection):
            pass
        return len(self.given) - before

    def _read_page(self, connection: Connection) -> bool:
        look_at = self.limit if self.rating is None else self.limit * 20
        after = self.place
        window = connection.execute(_WINDOW, _values(after) | {"look_at": look_at}).one()
        ended, done = after.epoch < window.epoch, window.n < look_at
        upto = Cursor(after.epoch, int(window.last_xid), window.last_seq) if window.n else after
        to = {"to_xid": str(upto.xid), "to_seq": upto.seq, "limit": self.limit, "rating": self.rating}
        rows = connection.execute(_READ, _values(after) | to).all()
        self.given += [row.key for row in rows]
        if (
            len(rows) == self.limit
            and (last := Cursor(rows[-1].epoch, int(rows[-1].xid), rows[-1].seq)) < upto
        ):
            self.place = last
            return False
        if done:
            settled = Cursor(after.epoch, int(window.settled), 0)
            upto = Cursor(after.epoch + 1, 0, 0) if ended else max(upto, settled)
        self.place = upto
        return done and not ended


def add_consumer(connection: Connection, reader: OldReader) -> None:
    connection.execute(_ADD, _values(reader.place) | {"name": reader.name, "filter": _filter(reader)})


def take(connection: Connection, name: str) -> int:
    """Hold the name for an hour; the fence."""
    held = "UPDATE consumer SET fence = fence + 1, holder = 'old', lease_until = now() + interval '1 hour'"
    return int(
        connection.execute(text(f"{held} WHERE name = :name RETURNING fence"), {"name": name}).scalar_one()
    )


def acknowledge(connection: Connection, reader: OldReader, fence: int) -> bool:
    """Whether the place was kept; else another has the name."""
    values = _values(reader.place) | {"name": reader.name, "fence": fence, "lease_s": 3600}
    return connection.execute(_ACKNOWLEDGE, values).one_or_none() is not None


def add_webhook(connection: Connection, reader: OldReader, url: str, secret: str) -> UUID:
    values = _values(reader.place) | {"name": reader.name, "url": url, "filter": _filter(reader)}
    id_: UUID = connection.execute(_ADD_WEBHOOK, values).scalar_one()
    connection.execute(_ADD_SECRET, {"id": id_, "secret": secret})
    return id_


def deliver_all(connection: Connection, reader: OldReader) -> None:
    """Read to the end, deliver what comes, and keep the place."""
    count = reader.read_all(connection)
    connection.execute(_DELIVERED, _values(reader.place) | {"name": reader.name, "more": count})


def now(connection: Connection) -> Cursor:
    row = connection.execute(_END).one()
    return Cursor(row.epoch, int(row.settled), 0)


def burn(connection: Connection, next_id: int) -> None:
    """Use up transaction ids until this one is the next, or it is passed."""
    block = """
        DO $$ BEGIN
            WHILE pg_snapshot_xmax(pg_current_snapshot()) < xid8 '{}' LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP;
        END $$
    """
    connection.execute(text(block.format(next_id)))


def _filter(reader: OldReader) -> str:
    return json.dumps({} if reader.rating is None else {"rating": reader.rating})


def _values(cursor: Cursor) -> dict[str, object]:
    return {"epoch": cursor.epoch, "xid": str(cursor.xid), "seq": cursor.seq}

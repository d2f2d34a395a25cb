"""The feed: verdicts in commit order, so that nothing can appear before what was already read.

A serial number does not give that order: a row with a lower number may be committed later, and a reader that is past
it misses it. Here the transaction's id comes first, and nothing is read from the oldest open transaction upwards. All
transactions below it have ended, so what they wrote is visible. The price: a long write transaction anywhere in the
cluster holds the feed back while it is open.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, Row, text

from moderation.cursor import START, Cursor
from moderation.errors import DatabaseRestored, InvalidCursor, InvalidSubmission
from moderation.ledger.engine import autocommit, transaction
from moderation.published import COLUMNS, PublishedVerdict
from moderation.verdict import Rating

# Where few verdicts pass the filter, so many are looked at for each that is wanted, and the place is moved past them.
_LOOK_AT = 20

_LIMITS = """
    SELECT pg_snapshot_xmin(pg_current_snapshot()) AS settled, pg_snapshot_xmax(pg_current_snapshot()) AS ahead,
           newest.epoch, newest.system_identifier, NOT pg_is_in_recovery() AS primary
    FROM (SELECT epoch, system_identifier FROM feed_epoch ORDER BY epoch DESC LIMIT 1) AS newest
"""

# An earlier epoch has ended, whatever its transaction ids. The last row of what was looked at is taken once, as a row,
# and cast only in the outermost list: Postgres orders by an output column before it looks for an input column of that
# name, so a cast beside ORDER BY would order ids as texts, where 984 stands behind 3647.
# Whether more is unsettled is asked in order as well: for EXISTS it reads the whole table where the answer is no.
_WINDOW = text(f"""
    WITH limits AS MATERIALIZED ({_LIMITS}), bound AS MATERIALIZED (
        SELECT CASE WHEN :epoch < epoch THEN xid8 '18446744073709551615' ELSE settled END AS below FROM limits
    ), looked_at AS MATERIALIZED (
        SELECT v.xid, v.seq FROM bound b, verdict v
        WHERE (v.xid, v.seq) > (CAST(:xid AS xid8), :seq) AND v.xid < b.below AND v.epoch = :epoch
        ORDER BY v.xid, v.seq LIMIT :look_at
    ), last AS MATERIALIZED (
        SELECT w.xid, w.seq FROM looked_at w ORDER BY w.xid DESC, w.seq DESC LIMIT 1
    )
    SELECT l.settled::text AS settled_xid, l.ahead::text AS next_xid, l.epoch, l.primary,
           l.system_identifier = (SELECT system_identifier FROM pg_control_system()) AS at_home,
           (SELECT count(*) FROM looked_at) AS n, last.xid::text AS last_xid, last.seq AS last_seq,
           (
               SELECT true FROM verdict v WHERE v.xid >= l.settled AND v.epoch = l.epoch ORDER BY v.xid, v.seq LIMIT 1
           ) IS NOT NULL AS unsettled
    FROM limits l LEFT JOIN last ON true
""")

PASSES = """
    (CAST(:policy AS text) IS NULL OR policy_id = :policy OR policy = :policy)
    AND (CAST(:rating AS text) IS NULL OR rating = :rating)
    AND (CAST(:category AS text) IS NULL OR category = :category OR split_part(category, ':', 1) = :category)
    AND (CAST(:batch AS text) IS NULL OR batch = :batch)
"""

_READ = text(f"""
    SELECT f.epoch, f.xid::text AS verdict_xid, f.seq, {", ".join(f"f.{column}" for column in COLUMNS)} FROM feed f
    WHERE f.epoch = :epoch AND (f.xid, f.seq) > (CAST(:xid AS xid8), :seq)
        AND (f.xid, f.seq) <= (CAST(:to_xid AS xid8), :to_seq) AND {PASSES}
    ORDER BY f.xid, f.seq LIMIT :limit
""")

_ONE = text(
    f"SELECT epoch, xid::text AS verdict_xid, seq, {', '.join(COLUMNS)} FROM feed WHERE assessment_id = :id"
)

_END = text(f"SELECT epoch, settled::text AS settled_xid FROM ({_LIMITS}) AS limits")

_ADOPT = text("""
    INSERT INTO feed_epoch (epoch, system_identifier)
    SELECT newest.epoch + 1, here.system_identifier
    FROM (SELECT * FROM feed_epoch ORDER BY epoch DESC LIMIT 1) AS newest, pg_control_system() AS here
    WHERE newest.system_identifier <> here.system_identifier
    RETURNING epoch
""")


@dataclass(frozen=True, slots=True)
class Filter:
    """Which verdicts are wanted. None: all.

    policy: an id, or id@revision. rating: Safe or Unsafe. category: its id, such as O4, or its whole name.
    """

    policy: str | None = None
    rating: str | None = None
    category: str | None = None
    batch: str | None = None

    def __post_init__(self) -> None:
        if self.rating is not None and self.rating not in {rating.value for rating in Rating}:
            raise InvalidSubmission(f"a rating is Safe or Unsafe, not {self.rating!r}")

    def values(self) -> dict[str, str | None]:
        return {"policy": self.policy, "rating": self.rating, "category": self.category, "batch": self.batch}

    def criteria(self) -> dict[str, str]:
        """Only what is asked for."""
        return {name: value for name, value in self.values().items() if value is not None}


EVERYTHING = Filter()


@dataclass(frozen=True, slots=True)
class Page:
    """Some verdicts, in order. upto: all before it are read, or do not pass the filter.

    done: nothing more is there to read now. unsettled: more is committed, and waits for an open transaction to end.
    """

    verdicts: Sequence[PublishedVerdict]
    upto: Cursor
    done: bool
    unsettled: bool


def read(engine: Engine, after: Cursor, wanted: Filter = EVERYTHING, *, limit: int = 500) -> Page:
    """The next verdicts after this place: at most `limit`, and perhaps none though there are more.

    Raises InvalidCursor for a place that this database has not come to; DatabaseRestored; LedgerUnavailable.
    """
    look_at = limit if wanted == EVERYTHING else limit * _LOOK_AT
    with autocommit(engine) as connection:
        window = connection.execute(_WINDOW, _place(after) | {"look_at": look_at}).one()
        _check(window, after)
        ended = after.epoch < window.epoch
        done = window.n < look_at
        upto = Cursor(after.epoch, int(window.last_xid), window.last_seq) if window.n else after
        verdicts = _between(connection, after, upto, wanted, limit) if window.n else []
    if len(verdicts) == limit and verdicts[-1].cursor < upto:
        return Page(verdicts, verdicts[-1].cursor, False, False)
    if done:
        upto = (
            Cursor(after.epoch + 1, 0, 0)
            if ended
            else max(upto, Cursor(after.epoch, int(window.settled_xid), 0))
        )
    return Page(verdicts, upto, done and not ended, bool(window.unsettled))


def end(engine: Engine) -> Cursor:
    """The place behind everything that can be read now."""
    with autocommit(engine) as connection:
        row = connection.execute(_END).one()
    return Cursor(row.epoch, int(row.settled_xid), 0)


def check_place(engine: Engine, cursor: Cursor) -> None:
    """Raises InvalidCursor where this database has not come to such a place."""
    with autocommit(engine) as connection:
        _check(connection.execute(_WINDOW, _place(cursor) | {"look_at": 0}).one(), cursor)


def verdict_of(engine: Engine, id_: Any) -> PublishedVerdict | None:
    """The verdict of one assessment."""
    with autocommit(engine) as connection:
        row = connection.execute(_ONE, {"id": id_}).one_or_none()
    return None if row is None else _published(row)


def adopt(engine: Engine) -> int | None:
    """Begin an epoch where this database was restored into another cluster; its number, or None where it was not.

    Every writer waits for it a moment, so that none writes into the epoch that has ended.
    """
    with transaction(engine) as connection:
        connection.execute(text("LOCK TABLE feed_epoch IN EXCLUSIVE MODE"))
        epoch: int | None = connection.execute(_ADOPT).scalar()
        if epoch is not None:
            connection.execute(text(f"ALTER TABLE verdict ALTER COLUMN epoch SET DEFAULT {int(epoch)}"))
        return epoch


def _place(cursor: Cursor) -> dict[str, Any]:
    return {"epoch": cursor.epoch, "xid": str(cursor.xid), "seq": cursor.seq}


def _check(window: Row[Any], after: Cursor) -> None:
    if not window.at_home:
        raise DatabaseRestored("this database was restored from another cluster; run `vetline db upgrade`")
    too_far = after.epoch > window.epoch or (after.epoch == window.epoch and after.xid > int(window.next_xid))
    if after < START or (too_far and window.primary):  # a replica may only be behind
        raise InvalidCursor("the cursor is of another database, or of this one before it was set back")


def _between(
    connection: Connection, after: Cursor, upto: Cursor, wanted: Filter, limit: int
) -> list[PublishedVerdict]:
    values = _place(after) | {"to_xid": str(upto.xid), "to_seq": upto.seq, "limit": limit} | wanted.values()
    return [_published(row) for row in connection.execute(_READ, values)]


def _published(row: Row[Any]) -> PublishedVerdict:
    fields = dict(row._mapping)
    cursor = Cursor(fields.pop("epoch"), int(fields.pop("verdict_xid")), fields.pop("seq"))
    return PublishedVerdict(cursor=cursor, **fields)

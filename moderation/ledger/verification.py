"""Verifies consumers and webhooks: was everything before their places given out?

Whoever moves a place counts what was given out on the way. From the place that was verified last to the present one,
that count must equal the rows that pass the filter. All rows up to a place were settled before the place came there,
so one statement sees place, count and rows consistently.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, Engine, Row, TextClause, text

from moderation.cursor import Cursor
from moderation.errors import InvalidConsumer, InvalidCursor, InvalidWebhook, VetlineError
from moderation.ledger.engine import transaction
from moderation.ledger.feed import EVERYTHING, PASSES, Filter

# A count over the whole ledger takes seconds for each million verdicts.
_PATIENCE_S = 3600.0
_BOUNDED_PATIENCE_S = 30.0


class ReaderKind(StrEnum):
    """Whose place it is; also its table's name."""

    CONSUMER = "consumer"
    WEBHOOK = "webhook"


class PlaceFinding(StrEnum):
    """What a verification found.

    WHOLE: as many were given out as there are. MISSING: fewer. EXCESS: more, so the count proves nothing.
    UNPROVEN: nothing is known of what lies before the place. UNCOUNTED: too many rows lie between to be counted now.
    """

    WHOLE = "whole"
    MISSING = "missing"
    EXCESS = "excess"
    UNPROVEN = "unproven"
    UNCOUNTED = "uncounted"


@dataclass(frozen=True, slots=True)
class Verification:
    """One consumer or webhook, verified between the place `verified` and its present `place`.

    verified: None where it is unproven. given: verdicts counted as given out between the two (webhooks: delivered or
    set aside). exist: verdicts there that pass the filter; None where they were not counted.
    put_back: the place was set back to `verified`; what `exist` counts comes again.
    """

    kind: ReaderKind
    name: str
    finding: PlaceFinding
    place: Cursor
    verified: Cursor | None
    given: int
    exist: int | None
    put_back: bool = False

    @property
    def breach(self) -> bool:
        """Verdicts were lost, or the count says nothing."""
        return self.finding in {PlaceFinding.MISSING, PlaceFinding.EXCESS}


@dataclass(frozen=True, slots=True)
class _Extent:
    """How far a verification goes. limit_rows: not past so many verdicts; None: all.

    checkpoint: keep what was found whole, so that the next one begins there. adopt: where nothing is known, count from
    the present place on. repair: set the place back where verdicts are missing.
    """

    limit_rows: int | None = None
    checkpoint: bool = True
    adopt: bool = True
    repair: bool = True


# Postgres cannot tell how little lies between two places, and would rather read whole tables for it.
_BY_INDEX = text("""
    SELECT set_config(name, 'off', true) FROM unnest(ARRAY['enable_seqscan', 'enable_hashjoin', 'enable_mergejoin', 'jit'])
        AS name
""")
_NAMES = "SELECT name FROM {kind} ORDER BY name"
_FILTER = "SELECT filter FROM {kind} WHERE name = :name"
_PLACE = "SELECT epoch, xid::text AS place_xid, seq FROM {kind} WHERE name = :name"

# Each epoch that the two places span, with its bounds in it. The index is by xid and seq.
_BETWEEN = """
    {verdict}.epoch = s.epoch AND ({verdict}.xid, {verdict}.seq) > (s.low_xid, s.low_seq)
    AND ({verdict}.xid, {verdict}.seq) <= (s.high_xid, s.high_seq)
"""
_SPAN = """
    span AS MATERIALIZED (
        SELECT e.epoch,
               CASE WHEN e.epoch = p.low_epoch THEN p.low_xid ELSE xid8 '0' END AS low_xid,
               CASE WHEN e.epoch = p.low_epoch THEN p.low_seq ELSE 0 END AS low_seq,
               CASE WHEN e.epoch = p.epoch THEN p.xid ELSE xid8 '18446744073709551615' END AS high_xid,
               CASE WHEN e.epoch = p.epoch THEN p.seq ELSE 9223372036854775807 END AS high_seq
        FROM place p JOIN feed_epoch e ON e.epoch BETWEEN p.low_epoch AND p.epoch
    )
"""
# By the view, as what is judged for an evaluation or in shadow is in no feed.
_ROWS = f"span s JOIN feed f ON {_BETWEEN.format(verdict='f')}"
_PASSING = f"span s JOIN feed f ON {_BETWEEN.format(verdict='f')} AND {PASSES}"

_EXAMINE = f"""
    WITH place AS MATERIALIZED (
        SELECT epoch, xid, seq, given, verified_given,
               verified_epoch AS low_epoch, verified_xid AS low_xid, verified_seq AS low_seq
        FROM {{kind}} WHERE name = :name
    ), {_SPAN}
    SELECT p.epoch, p.xid::text AS place_xid, p.seq, p.given AS given_ever, p.given - p.verified_given AS given,
           p.low_epoch, p.low_xid::text AS verified_xid, p.low_seq,
           CASE WHEN p.low_epoch IS NOT NULL AND (
               CAST(:limit_rows AS bigint) IS NULL
               OR (SELECT count(*) FROM (SELECT FROM {_ROWS} LIMIT :limit_rows + 1) AS seen) <= :limit_rows
           ) THEN (SELECT count(*) FROM {{rows}}) END AS exist
    FROM place p
"""

_COUNT = f"""
    WITH place AS MATERIALIZED (
        SELECT CAST(:epoch AS integer) AS epoch, CAST(:xid AS xid8) AS xid, CAST(:seq AS bigint) AS seq,
               CAST(:low_epoch AS integer) AS low_epoch, CAST(:low_xid AS xid8) AS low_xid,
               CAST(:low_seq AS bigint) AS low_seq
    ), {_SPAN}
    SELECT count(*) FROM {{rows}}
"""

# Only if nobody verified or moved it meanwhile.
_UNCHANGED = """
    name = :name AND (epoch, xid, seq) >= (:epoch, CAST(:xid AS xid8), :seq)
    AND verified_epoch IS NOT DISTINCT FROM CAST(:low_epoch AS integer)
    AND verified_xid IS NOT DISTINCT FROM CAST(:low_xid AS xid8)
    AND verified_seq IS NOT DISTINCT FROM CAST(:low_seq AS bigint)
"""
_CHECKPOINT = f"""
    UPDATE {{kind}} SET
        verified_epoch = :epoch, verified_xid = CAST(:xid AS xid8), verified_seq = :seq, verified_given = :given_ever
    WHERE {_UNCHANGED} RETURNING name
"""

# Whoever reads or sends finds the fence gone, and goes on from where the place was set back to.
_SET_BACK = "fence = fence + 1, lease_until = NULL, holder = NULL"
_PUT_BACK = f"""
    UPDATE {{kind}} SET
        epoch = verified_epoch, xid = verified_xid, seq = verified_seq, given = verified_given, {_SET_BACK}
    WHERE {_UNCHANGED} RETURNING name
"""
_GO_BACK = f"""
    UPDATE {{kind}} SET
        epoch = :epoch, xid = CAST(:xid AS xid8), seq = :seq, {_SET_BACK},
        verified_epoch = :epoch, verified_xid = CAST(:xid AS xid8), verified_seq = :seq, verified_given = given
    WHERE name = :name AND (epoch, xid, seq) >= (:epoch, CAST(:xid AS xid8), :seq) RETURNING name
"""


def verify_consumer(engine: Engine, name: str, *, repair: bool = True) -> Verification:
    """Compare what was given out under this name with what exists, and set its place back where verdicts are missing.

    Where all is there, the next verification begins here; where nothing is known, the count does. repair: False
    changes nothing. Raises InvalidConsumer where there is none of this name.
    """
    return _verify(engine, ReaderKind.CONSUMER, name, _Extent(checkpoint=repair, adopt=repair, repair=repair))


def verify_webhook(engine: Engine, name: str, *, repair: bool = True) -> Verification:
    """As `verify_consumer`, for an endpoint: what was delivered or set aside. Raises InvalidWebhook."""
    return _verify(engine, ReaderKind.WEBHOOK, name, _Extent(checkpoint=repair, adopt=repair, repair=repair))


def verify_all(engine: Engine, kind: ReaderKind, *, repair: bool = True) -> list[Verification]:
    """Every consumer, or every webhook, by name."""
    return _verify_each(engine, kind, _Extent(checkpoint=repair, adopt=repair, repair=repair))


def verify_places(engine: Engine, *, limit_rows: int, checkpoint: bool = True) -> list[Verification]:
    """Every consumer and webhook in bounded time; sets no place back.

    limit_rows: where more verdicts than that lie between two places, they are not counted: UNCOUNTED.
    checkpoint: keep what was found whole, so that the next time only what came since is counted. Needs the right to
    update; without it everything is only read.
    """
    extent = _Extent(limit_rows=limit_rows, checkpoint=checkpoint, adopt=False, repair=False)
    return [verification for kind in ReaderKind for verification in _verify_each(engine, kind, extent)]


def go_back(engine: Engine, kind: ReaderKind, name: str, to: Cursor, *, dry_run: bool = False) -> int:
    """Set a place back; how many verdicts that pass its filter come again.

    Raises InvalidCursor for a place further on, which would skip verdicts; InvalidConsumer, InvalidWebhook.
    """
    with transaction(engine) as connection:
        wanted = _wanted(connection, kind, name)
        row = connection.execute(_text(_PLACE, kind), {"name": name}).one()
    place = Cursor(row.epoch, int(row.place_xid), row.seq)
    again = count_passing(engine, wanted, to, place)
    with transaction(engine) as connection:
        moved = not dry_run and connection.execute(_text(_GO_BACK, kind), _place(to) | {"name": name}).first()
    if to > place or not (dry_run or moved):
        raise InvalidCursor(f"{name} has not come to this place, and would skip verdicts")
    return again


def count_passing(engine: Engine, wanted: Filter, after: Cursor, upto: Cursor) -> int:
    """How many verdicts pass the filter behind `after` up to `upto`."""
    with transaction(engine, patience_s=_PATIENCE_S) as connection:
        values = _place(upto) | _low(after) | wanted.values()
        return int(connection.execute(text(_COUNT.format(rows=_rows(wanted))), values).scalar_one())


def _verify_each(engine: Engine, kind: ReaderKind, extent: _Extent) -> list[Verification]:
    with transaction(engine) as connection:
        names = connection.execute(_text(_NAMES, kind)).scalars().all()
    verifications = []
    for name in names:
        try:
            verifications.append(_verify(engine, kind, name, extent))
        except (InvalidConsumer, InvalidWebhook):  # removed meanwhile
            continue
    return verifications


def _verify(engine: Engine, kind: ReaderKind, name: str, extent: _Extent) -> Verification:
    patience_s = _PATIENCE_S if extent.limit_rows is None else _BOUNDED_PATIENCE_S
    while True:
        with transaction(engine, patience_s=patience_s) as connection:
            if extent.limit_rows is not None:
                connection.execute(_BY_INDEX)
            row = _examine(connection, kind, name, extent.limit_rows)
        finding = _finding(row)
        statement = _change(finding, extent)
        if statement is None or _changed(engine, _text(statement, kind), name, row):
            return _verification(kind, name, row, finding, put_back=statement == _PUT_BACK)


def _examine(connection: Connection, kind: ReaderKind, name: str, limit_rows: int | None) -> Row[Any]:
    wanted = _wanted(connection, kind, name)
    values: Mapping[str, Any] = wanted.values() | {"name": name, "limit_rows": limit_rows}
    row = connection.execute(_text(_EXAMINE, kind, rows=_rows(wanted)), values).one_or_none()
    if row is None:
        raise _unknown(kind, name)
    return row


def _wanted(connection: Connection, kind: ReaderKind, name: str) -> Filter:
    """Its filter, which it keeps for life. Raises InvalidConsumer or InvalidWebhook where there is none."""
    values = connection.execute(_text(_FILTER, kind), {"name": name}).scalar_one_or_none()
    if values is None:
        raise _unknown(kind, name)
    return Filter(**values)


def _finding(row: Row[Any]) -> PlaceFinding:
    if row.low_epoch is None:
        return PlaceFinding.UNPROVEN
    if row.exist is None:
        return PlaceFinding.UNCOUNTED
    if row.given == row.exist:
        return PlaceFinding.WHOLE
    return PlaceFinding.MISSING if row.given < row.exist else PlaceFinding.EXCESS


def _change(finding: PlaceFinding, extent: _Extent) -> str | None:
    """The statement that acts on what was found, if any does."""
    if (finding is PlaceFinding.WHOLE and extent.checkpoint) or (
        finding is PlaceFinding.UNPROVEN and extent.adopt
    ):
        return _CHECKPOINT
    if finding in {PlaceFinding.MISSING, PlaceFinding.EXCESS} and extent.repair:
        return _PUT_BACK
    return None


def _changed(engine: Engine, statement: TextClause, name: str, row: Row[Any]) -> bool:
    """Whether it was as examined until now; else it is to be examined again."""
    values = {"name": name, "epoch": row.epoch, "xid": row.place_xid, "seq": row.seq}
    values |= {"low_epoch": row.low_epoch, "low_xid": row.verified_xid, "low_seq": row.low_seq}
    if "given_ever" in statement.text:
        values["given_ever"] = row.given_ever
    with transaction(engine) as connection:
        return connection.execute(statement, values).one_or_none() is not None


def _verification(
    kind: ReaderKind, name: str, row: Row[Any], finding: PlaceFinding, *, put_back: bool
) -> Verification:
    place = Cursor(row.epoch, int(row.place_xid), row.seq)
    verified = None if row.low_epoch is None else Cursor(row.low_epoch, int(row.verified_xid), row.low_seq)
    return Verification(kind, name, finding, place, verified, row.given, row.exist, put_back)


def _rows(wanted: Filter) -> str:
    """Without a filter the index alone tells; with one, the rows that it asks about are joined."""
    return _ROWS if wanted == EVERYTHING else _PASSING


def _text(statement: str, kind: ReaderKind, **parts: str) -> TextClause:
    return text(statement.format(kind=kind.value, **parts))


def _place(cursor: Cursor) -> dict[str, Any]:
    return {"epoch": cursor.epoch, "xid": str(cursor.xid), "seq": cursor.seq}


def _low(cursor: Cursor) -> dict[str, Any]:
    return {"low_epoch": cursor.epoch, "low_xid": str(cursor.xid), "low_seq": cursor.seq}


def _unknown(kind: ReaderKind, name: str) -> VetlineError:
    if kind is ReaderKind.CONSUMER:
        return InvalidConsumer(f"there is no consumer named {name}")
    return InvalidWebhook(f"there is no webhook named {name}")

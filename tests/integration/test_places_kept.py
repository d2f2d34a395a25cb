"""Which places the upgrade from 0.1.0 puts back and which stay, one by one. Transaction ids are set by hand."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pytest
from sqlalchemy import Connection, Engine, text

from moderation.cursor import Cursor
from moderation.ledger import migrate
from tests.support import release_0_1_0 as old
from tests.support.ledger import take_back
from tests.support.recorded import record
from tests.support.release_0_1_0 import OldReader

LONG_AGO, NOW = "interval '2 hours'", "interval '0'"


@dataclass(frozen=True)
class At:
    """A verdict by its transaction. ago: how long before now it was recorded."""

    xid: int
    epoch: int = 1
    ago: str = NOW
    rating: str = "Safe"


@pytest.fixture
def connection(ledger: Engine) -> Iterator[Connection]:
    """With the tables of 0.1.0."""
    take_back(ledger, "0012")
    with ledger.connect() as opened:
        yield opened


def add(connection: Connection, verdicts: Sequence[At]) -> list[int]:
    """Their numbers."""
    connection.execute(text("INSERT INTO feed_epoch SELECT e, e FROM generate_series(2, 3) AS e"))
    connection.execute(text("ALTER TABLE verdict DISABLE TRIGGER verdict_kept"))
    numbers = []
    for n, at in enumerate(verdicts):
        (id_,) = record(connection, 1, first=n, rating=at.rating)
        statement = (
            f"UPDATE verdict SET xid = xid8 '{at.xid}', epoch = {at.epoch}, recorded_at = now() - {at.ago}"
        )
        found = connection.execute(text(f"{statement} WHERE assessment_id = :id RETURNING seq"), {"id": id_})
        numbers.append(int(found.scalar_one()))
    return numbers


def upgraded(connection: Connection, kind: str) -> tuple[Cursor, Cursor]:
    """The place that it has now, and up to where it is verified. Nobody else may have it where that moved."""
    before = connection.execute(text(f"SELECT fence, epoch, xid::text AS id, seq FROM {kind}")).one()
    migrate.upgrade(connection.engine)
    row = connection.execute(
        text(f"SELECT fence, epoch, xid::text AS id, seq, verified_epoch, verified_xid::text AS low_id, verified_seq,"
             f" given, lease_until FROM {kind}")
    ).one()  # fmt: skip
    place = Cursor(row.epoch, int(row.id), row.seq)
    moved = place != Cursor(before.epoch, int(before.id), before.seq)
    assert row.fence == before.fence + moved
    assert row.given == 0
    assert not (moved and row.lease_until)
    return place, Cursor(row.verified_epoch, int(row.low_id), row.verified_seq)


def consumer_at(connection: Connection, place: Cursor, *, acknowledged: bool = True) -> None:
    old.add_consumer(connection, OldReader("c", place))
    old.take(connection, "c")
    if acknowledged:
        connection.execute(text("UPDATE consumer SET acknowledged_at = now()"))


def webhook_at(connection: Connection, place: Cursor, delivered: int, rating: str | None = None) -> None:
    old.add_webhook(connection, OldReader("w", place, rating), "https://hooks.test/", "whsec_x")
    connection.execute(
        text("UPDATE webhook SET delivered = :n, created_at = now() - interval '1 minute'"), {"n": delivered}
    )


@pytest.mark.parametrize(
    ("ids", "place"),
    [
        ([], Cursor(1, 5000, 0)),
        ([At(990), At(1010)], Cursor(1, 1005, 0)),
        ([At(990), At(1000)], Cursor(1, 1000, 0)),
        ([At(2000), At(3000)], Cursor(1, 4000, 0)),
        ([At(900), At(999), At(100, epoch=2), At(101, epoch=2)], Cursor(2, 200, 0)),
        ([At(2**63), At(2**63 + 1)], Cursor(1, 2**63 + 2, 0)),
    ],
    ids=["no verdicts", "none behind the power", "on the power", "same length", "epochs", "longest"],
)
def test_a_consumer_that_crossed_no_power_of_ten_stays(
    connection: Connection, ids: list[At], place: Cursor
) -> None:
    add(connection, ids)
    consumer_at(connection, place)
    assert upgraded(connection, "consumer") == (place, place)


def test_a_consumer_that_never_acknowledged_stays(connection: Connection) -> None:
    add(connection, [At(990), At(1010)])
    consumer_at(connection, Cursor(1, 2000, 0), acknowledged=False)
    assert upgraded(connection, "consumer")[0] == Cursor(1, 2000, 0)


@pytest.mark.parametrize(
    ("ids", "place", "back"),
    [
        ([At(990), At(1010)], Cursor(1, 1020, 0), Cursor(1, 990, 0)),
        ([At(95), At(990), At(1010)], Cursor(1, 1020, 0), Cursor(1, 95, 0)),
        ([At(2000), At(12_000), At(120_000)], Cursor(1, 130_000, 0), Cursor(1, 2000, 0)),
        ([At(5000), At(6000), At(900, 2), At(1100, 2)], Cursor(2, 1200, 0), Cursor(2, 900, 0)),
        ([At(5000), At(12_000), At(900, 2)], Cursor(3, 0, 0), Cursor(1, 5000, 0)),
    ],
    ids=["1,000", "100", "the first of two", "in the second epoch", "in an epoch that ended"],
)
def test_a_consumer_is_put_back_before_the_first_power_of_ten_that_it_crossed(
    connection: Connection, ids: list[At], place: Cursor, back: Cursor
) -> None:
    add(connection, ids)
    consumer_at(connection, place)
    assert upgraded(connection, "consumer") == (back, back)


def test_no_more_than_a_window_before_the_power_comes_again(connection: Connection) -> None:
    """0.1.0 sent fifty verdicts of a window in the order of their ids as texts: fifty before the power may be lost."""
    numbers = add(connection, [*(At(900 + n, ago=LONG_AGO) for n in range(60)), At(1001, ago=LONG_AGO)])
    webhook_at(connection, Cursor(1, 1002, 0), delivered=60)
    assert upgraded(connection, "webhook")[0] == Cursor(1, 909, numbers[9])


@pytest.mark.parametrize(
    ("ids", "delivered"),
    [
        ([At(950, ago=LONG_AGO), At(990), At(1010)], 2),
        ([At(950), At(990), At(1010)], 3),
        ([At(950, ago=LONG_AGO), At(1010, ago=LONG_AGO), At(1020)], 0),
        ([At(950, ago=LONG_AGO), At(1010, ago=LONG_AGO), At(1020)], 3),
    ],
    ids=["all since it was added", "all there are", "crossed before it was added", "all from the start"],
)
def test_a_webhook_that_lost_nothing_stays(connection: Connection, ids: list[At], delivered: int) -> None:
    add(connection, ids)
    webhook_at(connection, Cursor(1, 1100, 0), delivered)
    assert upgraded(connection, "webhook") == (Cursor(1, 1100, 0), Cursor(1, 1100, 0))


def test_what_was_set_aside_counts_as_given(connection: Connection) -> None:
    add(connection, [At(950, ago=LONG_AGO), At(990), At(1010)])
    webhook_at(connection, Cursor(1, 1100, 0), delivered=1)
    connection.execute(text("INSERT INTO webhook_set_aside SELECT w.id, v.assessment_id, 9, 'e' FROM webhook w, verdict v"
                            " WHERE v.xid = xid8 '990'"))  # fmt: skip
    assert upgraded(connection, "webhook")[0] == Cursor(1, 1100, 0)


@pytest.mark.parametrize(
    ("ids", "delivered", "back"),
    [
        ([At(950, ago=LONG_AGO), At(990), At(1010)], 1, Cursor(1, 990, 0)),
        ([At(950, ago="interval '5 minutes'"), At(990), At(1010)], 2, Cursor(1, 950, 0)),
        ([At(950, ago=LONG_AGO), At(990, ago=LONG_AGO), At(1010)], 2, Cursor(1, 950, 0)),
    ],
    ids=["one since it was added", "one that was open when it was added", "began earlier"],
)
def test_a_webhook_is_put_back_to_where_it_may_have_begun(
    connection: Connection, ids: list[At], delivered: int, back: Cursor
) -> None:
    add(connection, ids)
    webhook_at(connection, Cursor(1, 1100, 0), delivered)
    assert upgraded(connection, "webhook") == (back, back)


def test_only_what_passes_a_webhooks_filter_is_counted(connection: Connection) -> None:
    add(connection, [At(990), At(995, rating="Unsafe"), At(1010), At(1020, rating="Unsafe")])
    webhook_at(connection, Cursor(1, 1100, 0), delivered=2, rating="Unsafe")
    assert upgraded(connection, "webhook")[0] == Cursor(1, 1100, 0)

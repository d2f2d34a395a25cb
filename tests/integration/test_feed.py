"""The feed on a real Postgres: no verdict is missed, whatever the order of commits; names are held by one reader."""

import asyncio
import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine, text

from consumer.feed import AsyncFeed, Cursor, Feed, FeedSettings, PublishedVerdict
from moderation.cursor import NOW
from moderation.errors import (
    ConsumerTaken,
    DatabaseRestored,
    InvalidConsumer,
    InvalidCursor,
    InvalidSubmission,
)
from moderation.ledger import consumers
from moderation.ledger.engine import open_ledger, transaction
from moderation.ledger.feed import adopt, end, read
from moderation.ledger.notify import notify_recorded
from moderation.settings import LedgerSettings
from tests.support.recorded import record
from tests.support.waiting import wait_for

QUICK = FeedSettings(batch_size=10, poll_s=0.1, lease_s=1)


@pytest.fixture
def url(ledger: Engine) -> str:
    return ledger.url.render_as_string(hide_password=False)


def keys(verdicts: Any) -> list[str]:
    return [verdict.key for verdict in verdicts]


def all_of(url: str, **options: Any) -> list[PublishedVerdict]:
    with Feed(database_url=url, settings=QUICK, **options) as feed:
        return [verdict for batch in feed.batches(follow=False) for verdict in batch]


def test_sixteen_writers_commit_out_of_order_and_nothing_is_missed(ledger: Engine, url: str) -> None:
    """A cursor over the plain number beside it misses rows: the test would notice a feed that did."""
    writers, each = 16, 25
    engine = open_ledger(url, LedgerSettings(pool_size=writers))
    written: list[UUID] = []
    ended = threading.Event()

    def write(writer: int) -> None:
        pause = random.Random(writer)
        for number in range(each):
            with transaction(engine) as connection:
                ids = record(connection, prefix=f"{writer}-{number}-")
                time.sleep(pause.uniform(0, 0.02))  # between the number and the commit
            written.extend(ids)

    def follow_the_number() -> set[UUID]:
        seen: set[UUID] = set()
        last = 0
        query = text("SELECT seq, assessment_id FROM verdict WHERE seq > :last ORDER BY seq")
        while True:
            was_over = ended.is_set()
            with ledger.connect() as connection:
                rows = connection.execute(query, {"last": last}).all()
            if rows:
                last = rows[-1].seq
                seen |= {row.assessment_id for row in rows}
            elif was_over:
                return seen

    def follow_the_feed() -> list[UUID]:
        seen: list[UUID] = []
        with Feed(database_url=url, settings=QUICK) as feed:
            while True:
                was_over = ended.is_set()
                batch = feed.next_batch()
                seen += [verdict.assessment_id for verdict in batch]
                if not batch and was_over:
                    return seen

    with ThreadPoolExecutor(writers + 2) as pool:
        by_number, by_feed = pool.submit(follow_the_number), pool.submit(follow_the_feed)
        for done in [pool.submit(write, writer) for writer in range(writers)]:
            done.result()
        ended.set()
        assert len(written) == writers * each
        assert sorted(by_feed.result()) == sorted(written)
        assert len(by_number.result()) < len(written), "the writers did not commit out of order"
    engine.dispose()


def test_what_an_open_transaction_may_still_precede_is_not_read_yet(ledger: Engine, url: str) -> None:
    with ledger.connect() as connection:
        record(connection, prefix="before")
    with transaction(ledger) as slow:
        record(slow, prefix="slow")
        with ledger.connect() as connection:
            record(connection, prefix="quick")
        page = read(ledger, Cursor(1, 0, 0))
        assert keys(page.verdicts) == ["before0"]
        assert page.done
        assert page.unsettled
    page = read(ledger, page.upto)
    assert keys(page.verdicts) == ["slow0", "quick0"]
    assert not page.unsettled


def test_a_cursor_goes_on_where_it_was_taken_also_within_a_transaction(ledger: Engine, url: str) -> None:
    with ledger.connect() as connection:
        record(connection, 25)
        record(connection, 5, first=25)
    whole = all_of(url)
    assert keys(whole) == [f"k{n}" for n in range(30)]
    for number in (0, 9, 10, 17, 29):
        assert keys(all_of(url, after=str(whole[number].cursor))) == keys(whole[number + 1 :])
    assert all_of(url, after=NOW) == []


def test_filters_leave_out_and_the_place_still_moves_on(ledger: Engine, url: str) -> None:
    with ledger.connect() as connection:
        record(connection, 500)
        record(connection, 3, first=500, rating="Unsafe", batch="b")
    assert keys(all_of(url, rating="Unsafe")) == ["k500", "k501", "k502"]
    assert keys(all_of(url, category="O2", batch="b", policy="llavaguard-default@1")) == [
        "k500",
        "k501",
        "k502",
    ]
    assert all_of(url, policy="strict") == []
    with Feed(database_url=url, settings=QUICK, batch="none such") as feed:
        assert feed.next_batch() == []
        assert feed.cursor >= end(ledger)
    with pytest.raises(InvalidSubmission):
        Feed(database_url=url, rating="unsafe")


@pytest.mark.parametrize(
    "wrong", ["", "x", "v1.1.2.3", str(Cursor(1, 1, 1))[:-1], str(Cursor(0, 0, 0)), "🙂"]
)
def test_a_text_that_is_no_cursor_is_refused(url: str, wrong: str) -> None:
    with pytest.raises(InvalidCursor):
        Feed(database_url=url, after=wrong)


def test_a_cursor_of_another_database_is_refused(url: str) -> None:
    for elsewhere in (Cursor(1, 2**40, 1), Cursor(2, 0, 0)):
        with pytest.raises(InvalidCursor, match="another database"):
            Feed(database_url=url, after=elsewhere)


def test_a_consumer_goes_on_behind_what_it_acknowledged(ledger: Engine, url: str) -> None:
    with ledger.connect() as connection:
        record(connection, 25)
    with Feed(consumer="c", database_url=url, settings=QUICK) as feed:
        first = feed.next_batch()
        feed.acknowledge()
        assert keys(feed.next_batch()) == [f"k{n}" for n in range(10, 20)]
    with Feed(consumer="c", database_url=url, settings=QUICK) as feed:
        again = feed.next_batch()
        assert keys(again) == [f"k{n}" for n in range(10, 20)]
        feed.acknowledge(again[4].cursor)
    with Feed(
        consumer="c", after=NOW, database_url=url, settings=QUICK
    ) as feed:  # its own place, not this one
        seen = [verdict for batch in feed.batches(follow=False) for verdict in batch]
    assert keys(first) + keys(again[:5]) + keys(seen) == [f"k{n}" for n in range(25)]
    assert all_of(url, consumer="c") == []


def test_one_process_reads_under_a_name_and_the_next_takes_over(ledger: Engine, url: str) -> None:
    with ledger.connect() as connection:
        record(connection, 5)
    with Feed(consumer="c", database_url=url, settings=QUICK) as first:
        assert len(first.next_batch()) == 5
        with Feed(consumer="c", database_url=url, settings=QUICK) as second:
            assert second.next_batch() == []
            with pytest.raises(ConsumerTaken):
                list(second.batches(follow=False))
            # The first is frozen: it neither reads nor acknowledges, and its lease runs out.
            taken = wait_for(second.next_batch, what="the lease to run out")
            assert len(taken) == 5
            with pytest.raises(ConsumerTaken):
                first.acknowledge()
            second.acknowledge()
            assert first.next_batch() == []
        assert first.next_batch() == [], "what the second acknowledged does not come again"
        assert consumers.consumers(ledger)[0]["read_by"] is not None


def test_a_name_stands_for_one_filter(ledger: Engine, url: str) -> None:
    Feed(consumer="c", rating="Unsafe", database_url=url).close()
    Feed(consumer="c", rating="Unsafe", database_url=url).close()
    with pytest.raises(InvalidConsumer, match="rating=Unsafe"):
        Feed(consumer="c", database_url=url)
    with pytest.raises(InvalidConsumer):
        Feed(consumer="", database_url=url)


def test_a_consumer_that_finds_nothing_keeps_its_name_and_moves_its_place(ledger: Engine, url: str) -> None:
    with ledger.connect() as connection:
        record(connection, 5)
    behind = lambda: consumers.consumers(ledger)[0]["behind_s"]  # noqa: E731 - asked three times
    with (
        Feed(consumer="c", rating="Unsafe", database_url=url, settings=QUICK) as feed,
        ThreadPoolExecutor(1) as pool,
    ):
        assert behind() > 0
        following = pool.submit(lambda: next(feed.batches(), None))
        wait_for(lambda: behind() is None, what="the place to move past what does not pass")
        with ledger.connect() as connection:
            record(connection, 1, first=5, rating="Unsafe")
        assert keys(following.result(30) or ()) == ["k5"]


def test_moving_a_consumer_sets_its_reader_back(ledger: Engine, url: str) -> None:
    with ledger.connect() as connection:
        record(connection, 3)
    with Feed(consumer="c", database_url=url, settings=QUICK) as feed:
        assert len(feed.next_batch()) == 3
        consumers.move(ledger, "c", Cursor(1, 0, 0))
        with pytest.raises(ConsumerTaken):
            feed.acknowledge()
        assert len(feed.next_batch()) == 3
    consumers.remove(ledger, "c")
    for change in (
        lambda: consumers.remove(ledger, "c"),
        lambda: consumers.move(ledger, "c", Cursor(1, 0, 0)),
    ):
        with pytest.raises(InvalidConsumer):
            change()


def test_a_loop_acknowledges_a_batch_once_it_asks_for_the_next(ledger: Engine, url: str) -> None:
    with ledger.connect() as connection:
        record(connection, 15)
    with Feed(consumer="c", database_url=url, settings=QUICK) as feed:
        for verdict in feed:
            if verdict.key == "k12":
                break
    assert keys(all_of(url, consumer="c")) == [f"k{n}" for n in range(10, 15)]


def test_a_waiting_feed_is_woken_by_the_notification(ledger: Engine, url: str) -> None:
    patient = FeedSettings(poll_s=60)
    with Feed(database_url=url, settings=patient, after=NOW) as feed, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(lambda: next(feed.batches()))
        listening = text(
            "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'LISTEN%' AND state = 'idle'"
        )

        def listens() -> bool:
            with ledger.connect() as connection:
                return bool(connection.execute(listening).scalar_one())

        wait_for(listens, what="LISTEN")
        with ledger.connect() as connection:
            record(connection)
        notify_recorded(ledger)
        assert keys(waiting.result(30)) == ["k0"]


def test_a_feed_rides_out_a_connection_that_is_cut(ledger: Engine, url: str) -> None:
    cut = text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
               " AND pid <> pg_backend_pid()")  # fmt: skip

    def numbers(feed: Feed) -> Iterator[str]:
        for verdict in feed:
            yield str(verdict.key)

    with Feed(consumer="c", database_url=url, settings=QUICK) as feed:
        found = numbers(feed)
        for number in range(3):
            with ledger.connect() as connection:
                record(connection, 1, first=number)
                connection.execute(cut)
            assert next(found) == f"k{number}"


def test_the_same_feed_for_asyncio(ledger: Engine, url: str) -> None:
    with ledger.connect() as connection:
        record(connection, 25)

    async def consume() -> list[str]:
        seen = []
        async with AsyncFeed(consumer="c", database_url=url, settings=QUICK) as feed:
            async for verdict in feed:
                seen.append(str(verdict.key))
                if len(seen) == 15:
                    break
        async with AsyncFeed(consumer="c", database_url=url, settings=QUICK) as feed:
            async for batch in feed.batches(follow=False):
                seen += keys(batch)
                await feed.acknowledge()
        return seen

    ten_to_fifteen_twice = [*range(15), *range(10, 25)]
    assert asyncio.run(consume()) == [f"k{n}" for n in ten_to_fifteen_twice]


@pytest.mark.parametrize("way", ["next_batch", "batches"])
def test_a_batch_whose_reader_was_cancelled_is_handed_out_next(ledger: Engine, url: str, way: str) -> None:
    with ledger.connect() as connection:
        record(connection, 35)

    async def read_once(feed: AsyncFeed) -> list[str]:
        if way == "next_batch":
            return keys(await feed.next_batch())
        async for batch in feed.batches(follow=False):
            return keys(batch)
        return []

    async def consume() -> list[str]:
        seen: list[str] = []
        async with AsyncFeed(consumer="c", database_url=url, settings=QUICK) as feed:
            while True:
                cancelled = asyncio.create_task(read_once(feed))
                await asyncio.sleep(0)  # the thread reads by now
                cancelled.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await cancelled
                await feed.acknowledge()  # of what was handed out, not of what was read
                batch = await read_once(feed)
                if not batch:
                    return seen
                seen += batch

    assert asyncio.run(consume()) == [f"k{n}" for n in range(35)]
    with ledger.connect() as connection:
        record(connection, 1, first=35)
    assert keys(all_of(url, consumer="c")) == ["k35"]


def test_cancelling_an_async_consumer_loses_nothing(ledger: Engine, url: str) -> None:
    async def cancelled() -> None:
        async with AsyncFeed(consumer="c", database_url=url, settings=QUICK) as feed:
            async for _ in feed:
                pass

    async def run() -> None:
        task = asyncio.create_task(cancelled())
        await asyncio.sleep(0)
        with ledger.connect() as connection:
            record(connection, 3)
        await asyncio.to_thread(
            wait_for,
            lambda: consumers.consumers(ledger) and consumers.consumers(ledger)[0]["behind_s"] is None,
        )
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())
    assert consumers.consumers(ledger)[0]["read_by"] is None
    with ledger.connect() as connection:
        record(connection, 1, first=3)
    assert keys(all_of(url, consumer="c")) == ["k3"]


def test_a_restored_database_begins_an_epoch_behind_all_that_it_brought(ledger: Engine, url: str) -> None:
    with ledger.connect() as connection:
        record(connection, 12)
    place = all_of(url)[4].cursor
    with ledger.connect() as connection:  # as a dump from a cluster that had come far: its ids are past ours
        connection.execute(text("ALTER TABLE verdict DISABLE TRIGGER verdict_kept"))
        connection.execute(text("UPDATE verdict SET xid = (xid::text::bigint + 1000000)::text::xid8"))
        connection.execute(text("ALTER TABLE verdict ENABLE TRIGGER verdict_kept"))
        connection.execute(text("UPDATE feed_epoch SET system_identifier = 1"))
    with pytest.raises(DatabaseRestored, match="db upgrade"):
        all_of(url)
    assert adopt(ledger) == 2
    assert adopt(ledger) is None
    with ledger.connect() as connection:
        record(connection, 3, first=12)
    moved = Cursor(place.epoch, place.xid + 1_000_000, place.seq)
    assert keys(all_of(url, after=moved)) == [f"k{n}" for n in range(5, 15)]
    assert keys(all_of(url)) == [f"k{n}" for n in range(15)]

"""Every reader, on ledgers written across a boundary of transaction ids, gives out what is in the table, in commit order.

Each test reports its counts: `pytest -rP` shows them.
"""

import asyncio
import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing

import click.testing
import pytest
import typer
from sqlalchemy import text
from typer.testing import CliRunner

from consumer.cli import feed as cli_feed
from consumer.cli import verdicts as cli_verdicts
from consumer.feed import AsyncFeed, Feed, FeedSettings
from moderation.cursor import START
from moderation.ledger import consumers, webhooks
from moderation.ledger.export import ExportFilter, snapshot, verdict_pages
from moderation.ledger.feed import Filter, read
from moderation.webhook import new_secret
from tests.integration.boundaries.conftest import Crossed
from tests.support.crossing import FILTERS
from tests.support.given_out import compare
from tests.support.receiver import Receiver
from worker.webhooks.post import Poster
from worker.webhooks.sender import Sender
from worker.webhooks.settings import WebhookSettings

PAGE_SIZES = (1, 2, 7, 50, 500, 10_000)
# Every page size without a filter, every filter at a size that divides nothing, and the two ends together.
PAIRS = [
    *((name, 7) for name in FILTERS),
    *(("none", size) for size in PAGE_SIZES if size != 7),
    ("rating", 1),
    ("rating", 10_000),
]

Check = Callable[[str, str, dict[str, str], Sequence[str]], None]


@pytest.fixture
def check(crossed: Crossed, request: pytest.FixtureRequest) -> Iterator[Check]:
    """Holds what a reader was given against the table; the counts go into the test's report."""
    verdicts = wanted_in_all = runs = 0

    def compared(reader: str, what: str, wanted: dict[str, str], given: Sequence[str]) -> None:
        nonlocal verdicts, wanted_in_all, runs
        found = compare(crossed.ids(wanted), given)
        assert found.exact, f"{reader}, {what}: {found}"
        verdicts, wanted_in_all, runs = verdicts + found.given, wanted_in_all + found.in_table, runs + 1

    yield compared
    counts = f"{request.node.name}: {runs} readings gave {verdicts} of {wanted_in_all} verdicts\n"
    request.node.add_report_section("teardown", "counts", counts)


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch, crossed: Crossed) -> Callable[..., click.testing.Result]:
    """Runs `vetline feed` and `vetline verdicts` in this process, on the crossed ledger."""
    monkeypatch.setenv("DATABASE_URL", crossed.url)
    app = typer.Typer()
    app.add_typer(cli_feed.commands)
    app.add_typer(cli_verdicts.commands)

    def run(*words: str, page: int = 500) -> click.testing.Result:
        monkeypatch.setenv("VETLINE_FEED_BATCH_SIZE", str(page))
        done = CliRunner().invoke(app, list(words), catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done

    return run


def options(wanted: dict[str, str]) -> list[str]:
    """A filter as the command line takes it."""
    words = {name: value for name, value in wanted.items() if name != "rating"}
    unsafe = ["--unsafe"] if wanted.get("rating") == "Unsafe" else []
    return [word for name, value in words.items() for word in (f"--{name}", value)] + unsafe


def test_the_ledger_lies_across_its_boundary(crossed: Crossed) -> None:
    """Else the others would prove nothing."""
    xids = [row.place[1] for row in crossed.table]
    assert min(xids) < crossed.boundary <= max(xids)
    assert len(crossed.table) > 60
    assert len(set(xids)) < max(xids) - min(xids), "ids were burned"
    assert [row.place[2] for row in crossed.table] != sorted(row.place[2] for row in crossed.table)
    for name, wanted in FILTERS.items():
        assert (name == "nothing passes") == (not crossed.ids(wanted))


def test_pages_of_the_ledger(crossed: Crossed, check: Check) -> None:
    for (name, wanted), size in itertools.product(FILTERS.items(), PAGE_SIZES):
        given, place, done = [], START, False
        while not done:
            page = read(crossed.ledger, place, Filter(**wanted), limit=size)
            assert len(page.verdicts) <= size
            assert page.upto > place or page.done
            given += [str(verdict.assessment_id) for verdict in page.verdicts]
            place, done = page.upto, page.done
        check("read", f"{name} by {size}", wanted, given)


def test_feed(crossed: Crossed, check: Check) -> None:
    for name, size in PAIRS:
        settings = FeedSettings(batch_size=size)
        with Feed(database_url=crossed.url, settings=settings, **FILTERS[name]) as feed:
            given = [str(v.assessment_id) for batch in feed.batches(follow=False) for v in batch]
        check("Feed", f"{name} by {size}", FILTERS[name], given)


def test_async_feed(crossed: Crossed, check: Check) -> None:
    async def all_of(size: int, wanted: dict[str, str]) -> list[str]:
        settings = FeedSettings(batch_size=size)
        async with AsyncFeed(database_url=crossed.url, settings=settings, **wanted) as feed:
            return [str(v.assessment_id) async for batch in feed.batches(follow=False) for v in batch]

    for name, size in PAIRS:
        check("AsyncFeed", f"{name} by {size}", FILTERS[name], asyncio.run(all_of(size, FILTERS[name])))


def test_named_consumer_that_is_closed_and_opened_behind_each_batch(crossed: Crossed, check: Check) -> None:
    for name, size in (("none", 7), ("rating", 7), ("category", 50), ("batch", 500)):
        consumer, given, more = f"reopened {name} {size}", [], True
        while more:
            settings = FeedSettings(batch_size=size)
            with Feed(
                consumer=consumer, database_url=crossed.url, settings=settings, **FILTERS[name]
            ) as feed:
                batch = feed.next_batch()
                feed.acknowledge()
            given += [str(verdict.assessment_id) for verdict in batch]
            more = bool(batch)
        check("named consumer", f"{name} by {size}", FILTERS[name], given)


def test_named_consumer(crossed: Crossed, check: Check) -> None:
    for name, size in PAIRS:
        settings = FeedSettings(batch_size=size)
        with Feed(
            consumer=f"{name} {size}", database_url=crossed.url, settings=settings, **FILTERS[name]
        ) as feed:
            given = [str(v.assessment_id) for batch in feed.batches(follow=False) for v in batch]
        check("named consumer", f"{name} by {size}", FILTERS[name], given)
    assert [row["name"] for row in consumers.consumers(crossed.ledger) if row["behind_s"] is not None] == []


def test_webhook(crossed: Crossed, check: Check) -> None:
    settings = WebhookSettings(allow_hosts=("127.0.0.0/8",), allow_http=True, turn_s=60)
    for name, wanted in FILTERS.items():
        with Receiver(secret=new_secret()) as receiver, closing(Poster(settings)) as poster:
            start = {"secret": receiver.secret, "wanted": Filter(**wanted), "start": START}
            endpoint = webhooks.add_webhook(crossed.ledger, name, receiver.url(), **start)
            Sender(crossed.ledger, poster, settings, worker="w1").deliver(endpoint.id)
            given = [asked["data"]["assessment_id"] for asked in receiver.asked]
        check("webhook", name, wanted, given)
    assert [row["name"] for row in webhooks.webhooks(crossed.ledger) if row["behind_s"] is not None] == []


def test_vetline_feed_and_from_cursors_that_it_printed(
    crossed: Crossed, check: Check, commands: Callable[..., click.testing.Result]
) -> None:
    for name, wanted in FILTERS.items():
        lines = commands("feed", *options(wanted), page=7).stdout.splitlines()
        check("vetline feed", name, wanted, [json.loads(line)["assessment_id"] for line in lines])
    lines = commands("feed", page=500).stdout.splitlines()
    for number, size in zip(range(0, len(lines), 8), itertools.cycle(PAGE_SIZES), strict=False):
        rest = commands("feed", "--after", json.loads(lines[number])["cursor"], page=size)
        assert rest.stdout.splitlines() == lines[number + 1 :]


def test_exports(crossed: Crossed, check: Check, commands: Callable[..., click.testing.Result]) -> None:
    for name, wanted in FILTERS.items():
        policy, _, revision = wanted.get("policy", "").partition("@")
        choice = ExportFilter(
            policy=policy or None,
            revision=int(revision) if revision else None,
            batch=wanted.get("batch"),
            rating=wanted.get("rating"),
            category=wanted["category"].partition(":")[0] if "category" in wanted else None,
        )
        with snapshot(crossed.ledger) as connection:
            given = [row[0] for page in verdict_pages(connection, choice) for row in page]
        check("export", name, wanted, given)
    lines = commands("verdicts", "--format", "jsonl").stdout.splitlines()
    check("vetline verdicts", "none", {}, [json.loads(line)["id"] for line in lines])


def test_views(crossed: Crossed, check: Check) -> None:
    with crossed.ledger.connect() as connection:
        for view in ("verdict_history", "verdict_current", "feed"):
            rows = connection.execute(text(f"SELECT assessment_id::text, rating, batch FROM {view}")).all()
            assert sorted(row[0] for row in rows) == sorted(crossed.ids({}))
        ordered = connection.execute(text("SELECT assessment_id::text FROM feed ORDER BY epoch, xid, seq"))
        check("feed view", "none", {}, list(ordered.scalars()))

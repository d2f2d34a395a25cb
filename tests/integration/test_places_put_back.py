"""What release 0.1.0 lost is given out after the upgrade: real transaction ids, its own statements, real endpoints."""

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Connection, Engine
from typer.testing import CliRunner

from consumer.feed import Feed
from moderation.cli.main import command_line
from moderation.ledger import consumers, migrate
from moderation.ledger.engine import open_ledger
from moderation.ledger.policies import seed_builtin
from moderation.ledger.verification import PlaceFinding, ReaderKind, verify_all, verify_consumer
from moderation.services.postgres import LocalPostgres
from moderation.webhook import new_secret
from tests.support import release_0_1_0 as old
from tests.support.receiver import Receiver
from tests.support.recorded import record
from tests.support.release_0_1_0 import OldReader
from worker.webhooks.post import Poster
from worker.webhooks.sender import Sender
from worker.webhooks.settings import WebhookSettings

BEFORE = "0011"
FIRST_ID, LATER_ID = 985, 9_985  # a few verdicts before a power of ten


@pytest.fixture
def old_ledger(own_postgres: LocalPostgres) -> Iterator[Engine]:
    """A cluster of its own with the tables of 0.1.0, whose next transaction is shortly before 1,000."""
    engine = open_ledger(own_postgres.url)
    migrate.upgrade(engine, BEFORE)
    seed_builtin(engine)
    with engine.connect() as connection:
        old.burn(connection, FIRST_ID)
        assert old.now(connection).xid == FIRST_ID
    yield engine
    engine.dispose()


@pytest.fixture
def receivers() -> Iterator[tuple[Receiver, Receiver]]:
    secret = new_secret()
    with Receiver(secret=secret) as first, Receiver(secret=secret) as second:
        yield first, second


@pytest.fixture
def sender(old_ledger: Engine) -> Iterator[Sender]:
    settings = WebhookSettings(allow_hosts=("127.0.0.0/8",), allow_http=True)
    poster = Poster(settings)
    yield Sender(old_ledger, poster, settings, worker="w1")
    poster.close()


def recorded(connection: Connection, prefix: str, count: int = 20) -> list[str]:
    """So many transactions, each with two verdicts, of which one is Unsafe."""
    for number in range(count):
        record(connection, 1, first=number, prefix=f"{prefix}-safe-")
        record(connection, 1, first=number, prefix=f"{prefix}-unsafe-", rating="Unsafe")
    return [f"{prefix}-{rating}-{number}" for number in range(count) for rating in ("safe", "unsafe")]


def read(engine: Engine, name: str, **filters: Any) -> list[str]:
    url = engine.url.render_as_string(hide_password=False)
    with Feed(consumer=name, database_url=url, **filters) as feed:
        return [str(verdict.key) for batch in feed.batches(follow=False) for verdict in batch]


def vetline(*words: str) -> str:
    """What it prints, on both streams."""
    done = CliRunner().invoke(command_line(), words)
    assert done.exit_code == 0, done.output
    return " ".join(done.output.split())


def place(engine: Engine, name: str) -> str:
    return next(str(row["cursor"]) for row in consumers.consumers(engine) if row["name"] == name)


def test_all_that_consumers_and_webhooks_of_the_old_release_lost_is_given_out(
    old_ledger: Engine, receivers: tuple[Receiver, Receiver], sender: Sender
) -> None:
    every, unsafe = OldReader("every"), OldReader("unsafe", rating="Unsafe")
    hook, unsafe_hook = OldReader("hook", limit=50), OldReader("unsafe-hook", limit=50, rating="Unsafe")
    keys: list[str] = []
    with old_ledger.connect() as connection:
        for reader in (every, unsafe):
            old.add_consumer(connection, reader)
        ids = [
            old.add_webhook(connection, reader, receiver.url(), receiver.secret)
            for reader, receiver in zip((hook, unsafe_hook), receivers, strict=True)
        ]
        for next_id, prefix in ((FIRST_ID, "first"), (1_500, "between"), (LATER_ID, "later")):
            old.burn(connection, next_id)
            keys += recorded(connection, prefix)
            for reader in (every, unsafe):
                reader.read_all(connection)
                assert old.acknowledge(connection, reader, 0)
            for reader in (hook, unsafe_hook):
                old.deliver_all(connection, reader)
        # Another old process holds a lease, with a batch in hand.
        fence = old.take(connection, "every")

    wanted = {"every": set(keys), "unsafe": {key for key in keys if "unsafe" in key}}
    lost = {key for key in keys if key not in every.given}
    assert {key.partition("-")[0] for key in lost} == {"first", "later"}
    assert set(keys) - set(hook.given) == lost
    assert wanted["unsafe"] - set(unsafe.given)
    assert wanted["unsafe"] - set(unsafe_hook.given)

    upgraded = migrate.upgrade_tables(old_ledger)
    assert [(at.kind, at.name) for at in upgraded.places] == [
        ("consumer", "every"),
        ("consumer", "unsafe"),
        ("webhook", "hook"),
        ("webhook", "unsafe-hook"),
    ]
    assert all(at.back < at.was and not at.kept for at in upgraded.places)
    with old_ledger.connect() as connection:
        assert not old.acknowledge(connection, every, fence), "an old process moved the place forward again"

    assert set(read(old_ledger, "every")) | set(every.given) == wanted["every"]
    assert set(read(old_ledger, "unsafe", rating="Unsafe")) | set(unsafe.given) == wanted["unsafe"]
    for id_ in ids:
        sender.deliver(id_)
    assert set(receivers[0].taken) | set(hook.given) == wanted["every"]
    assert set(receivers[1].taken) | set(unsafe_hook.given) == wanted["unsafe"]
    for kind in ReaderKind:
        assert [found.finding for found in verify_all(old_ledger, kind)] == [PlaceFinding.WHOLE] * 2


def test_an_upgrade_puts_places_back_once(old_ledger: Engine) -> None:
    reader = OldReader("every")
    with old_ledger.connect() as connection:
        old.add_consumer(connection, reader)
        recorded(connection, "first")
        reader.read_all(connection)
        old.acknowledge(connection, reader, 0)
    (moved,) = migrate.upgrade_tables(old_ledger).places
    assert place(old_ledger, "every") == str(moved.back)
    assert len(read(old_ledger, "every")) == 40
    after = place(old_ledger, "every")
    again = migrate.upgrade_tables(old_ledger)
    assert (again.revision, again.places) == (migrate.head(), [])
    assert place(old_ledger, "every") == after


def test_keeping_places_leaves_them_and_says_how_to_send_again(
    old_ledger: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = OldReader("every")
    with old_ledger.connect() as connection:
        old.add_consumer(connection, reader)
        keys = recorded(connection, "first")
        reader.read_all(connection)
        old.acknowledge(connection, reader, 0)
    monkeypatch.setenv("DATABASE_URL", old_ledger.url.render_as_string(hide_password=False))
    said = vetline("db", "upgrade", "--keep-places")
    assert "consumer every: kept. Release 0.1.0 may have lost some of 40 verdicts" in said
    assert place(old_ledger, "every") == str(reader.place)
    assert verify_consumer(old_ledger, "every", repair=False).finding is PlaceFinding.UNPROVEN
    words = said[said.index("vetline consumer verify") :].split()
    assert "40 verdicts come again" in vetline(*words[1:6])
    assert set(read(old_ledger, "every")) == set(keys)


def test_an_upgrade_says_what_was_put_back(old_ledger: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = OldReader("unsafe", rating="Unsafe")
    with old_ledger.connect() as connection:
        old.add_consumer(connection, reader)
        recorded(connection, "first")
        reader.read_all(connection)
        old.acknowledge(connection, reader, 0)
    monkeypatch.setenv("DATABASE_URL", old_ledger.url.render_as_string(hide_password=False))
    said = vetline("db", "upgrade")
    assert f"consumer unsafe: put back, 20 verdicts come again (it was at {reader.place})" in said
    assert "put back" not in vetline("db", "upgrade")

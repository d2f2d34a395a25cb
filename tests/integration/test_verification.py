"""What was given out is counted as the places move, and a place that moved past verdicts is found and set back."""

import json
import random
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Engine, text
from typer.testing import CliRunner

from consumer.feed import Feed, FeedSettings
from moderation.cli.main import command_line
from moderation.cursor import NOW, START, Cursor
from moderation.errors import (
    BadSetting,
    ConsumerTaken,
    InvalidConsumer,
    InvalidCursor,
    InvalidWebhook,
    LedgerUnavailable,
)
from moderation.ledger import consumers, webhooks
from moderation.ledger.feed import EVERYTHING, Filter, adopt, end
from moderation.ledger.verification import (
    PlaceFinding,
    ReaderKind,
    Verification,
    count_passing,
    go_back,
    verify_all,
    verify_consumer,
    verify_places,
    verify_webhook,
)
from moderation.webhook import new_secret
from tests.support import release_0_1_0 as old
from tests.support.proxy import Proxy
from tests.support.receiver import OK, Receiver, status
from tests.support.recorded import record
from tests.support.release_0_1_0 import OldReader
from tests.support.waiting import wait_for
from worker.webhooks.post import Poster
from worker.webhooks.sender import Sender
from worker.webhooks.settings import WebhookSettings

QUICK = FeedSettings(batch_size=10, poll_s=0.1, lease_s=1)
SENDING = WebhookSettings(
    allow_hosts=("127.0.0.0/8",), allow_http=True, retry_base_s=0.01, retry_cap_s=0.05, lease_s=5
)


@pytest.fixture
def url(ledger: Engine) -> str:
    return ledger.url.render_as_string(hide_password=False)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver(secret=new_secret()) as listening:
        yield listening


@pytest.fixture
def sender(ledger: Engine) -> Iterator[Sender]:
    poster = Poster(SENDING)
    yield Sender(ledger, poster, SENDING, worker="w1")
    poster.close()


def recorded(ledger: Engine, count: int, first: int = 0, **fields: Any) -> None:
    with ledger.connect() as connection:
        for number in range(first, first + count):
            record(connection, 1, first=number, **fields)


def opened(url: str, **options: Any) -> Feed:
    return Feed(consumer="c", database_url=url, settings=QUICK, **options)


def keys(url: str, **options: Any) -> list[str]:
    with opened(url, **options) as feed:
        return [str(verdict.key) for batch in feed.batches(follow=False) for verdict in batch]


def skip(ledger: Engine, kind: ReaderKind) -> None:
    """Move the place to the end of the feed as release 0.1.0 did: nothing is counted."""
    to = end(ledger)
    values = {"epoch": to.epoch, "xid": str(to.xid), "seq": to.seq}
    with ledger.connect() as connection:
        connection.execute(
            text(f"UPDATE {kind.value} SET epoch = :epoch, xid = CAST(:xid AS xid8), seq = :seq"), values
        )


def counts(found: Verification) -> tuple[PlaceFinding, int, int | None]:
    return found.finding, found.given, found.exist


@pytest.mark.parametrize("wanted", [{}, {"rating": "Unsafe"}], ids=["everything", "Unsafe"])
@pytest.mark.parametrize("seed", range(3))
def test_the_count_holds_wherever_a_consumer_acknowledges_and_whoever_goes_on(
    ledger: Engine, url: str, seed: int, wanted: dict[str, str]
) -> None:
    """Whole batches, parts of them, none, renewals of the lease, restarts: as many are counted as exist, at each step."""
    chosen = random.Random(seed)
    for number in range(60):
        recorded(ledger, 1, number, rating=chosen.choice(["Safe", "Unsafe"]))
    for _ in range(12):
        with opened(url, **wanted) as feed:
            for _ in range(chosen.randrange(3)):
                batch = feed.next_batch()
                if batch and chosen.random() < 0.7:
                    feed.acknowledge(chosen.choice([None, *(verdict.cursor for verdict in batch)]))
        found = verify_consumer(ledger, "c", repair=chosen.random() < 0.3)
        assert found.finding is PlaceFinding.WHOLE, found
        assert found.given == found.exist
    keys(url, **wanted)
    passing = count_passing(ledger, Filter(**wanted), START, end(ledger))
    with ledger.connect() as connection:
        assert connection.execute(text("SELECT given FROM consumer")).scalar_one() == passing
    assert verify_consumer(ledger, "c").finding is PlaceFinding.WHOLE


def test_what_a_process_lost_with_its_lease_is_counted_by_the_next_alone(ledger: Engine, url: str) -> None:
    recorded(ledger, 30)
    with opened(url) as frozen, opened(url) as next_one:
        batch = frozen.next_batch()
        frozen.acknowledge(batch[3].cursor)
        frozen.next_batch()
        wait_for(next_one.next_batch, what="the lease to run out")
        with pytest.raises(ConsumerTaken):
            frozen.acknowledge()
        next_one.acknowledge()
    assert counts(verify_consumer(ledger, "c")) == (PlaceFinding.WHOLE, 14, 14)


def test_an_acknowledgement_whose_answer_was_lost_counts_once(
    ledger: Engine, far: Engine, proxy: Proxy
) -> None:
    recorded(ledger, 30)
    with opened(far.url.render_as_string(hide_password=False)) as feed:
        upto = feed.next_batch()[-1].cursor
        proxy.cut_after(down=0)
        with pytest.raises(LedgerUnavailable):
            feed.acknowledge(upto)
        assert consumers.consumers(ledger)[0]["cursor"] == str(upto), "the write stands"
        feed.next_batch()
        feed.acknowledge()
    assert counts(verify_consumer(ledger, "c")) == (PlaceFinding.WHOLE, 20, 20)


@pytest.mark.parametrize("wanted", [{}, {"rating": "Unsafe"}], ids=["everything", "Unsafe"])
def test_a_consumer_that_skipped_verdicts_is_found_and_set_back(
    ledger: Engine, url: str, wanted: dict[str, str]
) -> None:
    recorded(ledger, 5, rating="Unsafe")
    keys(url, **wanted)
    recorded(ledger, 7, first=5, rating="Unsafe")
    skip(ledger, ReaderKind.CONSUMER)
    assert counts(verify_consumer(ledger, "c", repair=False)) == (PlaceFinding.MISSING, 5, 12)
    assert keys(url, **wanted) == [], "nothing was changed"
    (found,) = verify_places(ledger, limit_rows=100)
    assert (*counts(found), found.put_back) == (PlaceFinding.MISSING, 5, 12, False)
    assert keys(url, **wanted) == []
    with opened(url, **wanted) as feed:
        assert feed.next_batch() == []
        found = verify_consumer(ledger, "c")
        assert found.put_back
        assert found.breach
        with pytest.raises(ConsumerTaken):
            feed.acknowledge()
    assert keys(url, **wanted) == [f"k{n}" for n in range(12)]
    assert counts(verify_consumer(ledger, "c")) == (PlaceFinding.WHOLE, 12, 12)


def test_a_verification_begins_where_the_last_one_ended(ledger: Engine, url: str) -> None:
    recorded(ledger, 5)
    keys(url)
    assert counts(verify_consumer(ledger, "c", repair=False)) == (PlaceFinding.WHOLE, 5, 5)
    assert counts(verify_consumer(ledger, "c")) == (PlaceFinding.WHOLE, 5, 5)
    assert counts(verify_consumer(ledger, "c")) == (PlaceFinding.WHOLE, 0, 0)
    recorded(ledger, 2, first=5)
    keys(url)
    recorded(ledger, 3, first=7)
    skip(ledger, ReaderKind.CONSUMER)
    found = verify_consumer(ledger, "c")
    assert (*counts(found), found.put_back) == (PlaceFinding.MISSING, 2, 5, True)
    assert keys(url) == [f"k{n}" for n in range(5, 10)], "only what came since it was verified comes again"


def test_what_an_operator_moved_past_is_not_missing(ledger: Engine, url: str) -> None:
    recorded(ledger, 5)
    keys(url)
    recorded(ledger, 5, first=5)
    consumers.move(ledger, "c", end(ledger))
    assert counts(verify_consumer(ledger, "c", repair=False)) == (PlaceFinding.WHOLE, 0, 0)
    consumers.move(ledger, "c", START)
    assert len(keys(url)) == 10
    assert counts(verify_consumer(ledger, "c")) == (PlaceFinding.WHOLE, 10, 10)


def test_a_consumer_that_began_at_the_end_misses_nothing_of_before(ledger: Engine, url: str) -> None:
    recorded(ledger, 5)
    assert keys(url, after=NOW) == []
    recorded(ledger, 2, first=5)
    assert keys(url) == ["k5", "k6"]
    assert counts(verify_consumer(ledger, "c")) == (PlaceFinding.WHOLE, 2, 2)


def test_verification_counts_across_epochs(ledger: Engine, url: str) -> None:
    recorded(ledger, 12)
    with opened(url) as feed:
        feed.next_batch()
        feed.acknowledge()
    with ledger.connect() as connection:
        connection.execute(text("UPDATE feed_epoch SET system_identifier = 1"))
    assert adopt(ledger) == 2
    recorded(ledger, 4, first=12)
    assert len(keys(url)) == 6
    assert counts(verify_consumer(ledger, "c", repair=False)) == (PlaceFinding.WHOLE, 16, 16)
    assert count_passing(ledger, EVERYTHING, START, Cursor(2, 0, 0)) == 12
    recorded(ledger, 1, first=16)
    skip(ledger, ReaderKind.CONSUMER)
    found = verify_consumer(ledger, "c")
    assert (found.given, found.exist, found.put_back) == (16, 17, True)
    assert len(keys(url)) == 17


def test_what_the_old_release_added_and_acknowledged_is_unproven_until_it_is_counted(
    ledger: Engine, url: str
) -> None:
    recorded(ledger, 5)
    with ledger.connect() as connection:
        old.add_consumer(connection, OldReader("c"))
        old.add_webhook(connection, OldReader("w"), "https://hooks.test/", "whsec_x")
    assert len(keys(url)) == 5
    for found in verify_places(ledger, limit_rows=100):
        assert (found.finding, found.verified, found.exist) == (PlaceFinding.UNPROVEN, None, None)
        assert not found.breach
    assert verify_consumer(ledger, "c").finding is PlaceFinding.UNPROVEN
    recorded(ledger, 2, first=5)
    keys(url)
    assert counts(verify_consumer(ledger, "c")) == (PlaceFinding.WHOLE, 2, 2)
    assert verify_webhook(ledger, "w").finding is PlaceFinding.UNPROVEN
    assert verify_webhook(ledger, "w").finding is PlaceFinding.WHOLE


def test_more_than_can_be_counted_in_time_is_said_and_left(ledger: Engine, url: str) -> None:
    recorded(ledger, 8)
    keys(url)
    (found,) = verify_places(ledger, limit_rows=7)
    assert (found.finding, found.exist, found.breach) == (PlaceFinding.UNCOUNTED, None, False)
    (found,) = verify_places(ledger, limit_rows=8, checkpoint=False)
    assert counts(found) == (PlaceFinding.WHOLE, 8, 8)
    (found,) = verify_places(ledger, limit_rows=8)
    assert counts(found) == (PlaceFinding.WHOLE, 8, 8)
    (found,) = verify_places(ledger, limit_rows=0)
    assert counts(found) == (PlaceFinding.WHOLE, 0, 0)


def added(ledger: Engine, receiver: Receiver, **wanted: str) -> webhooks.Endpoint:
    return webhooks.add_webhook(
        ledger, "w", receiver.url(), secret=receiver.secret, wanted=Filter(**wanted), start=START
    )


def test_what_a_webhook_delivered_or_set_aside_is_counted(
    ledger: Engine, receiver: Receiver, sender: Sender
) -> None:
    endpoint = added(ledger, receiver)
    recorded(ledger, 3)
    receiver.script = [OK, status(500)]
    sender.deliver(endpoint.id)
    with ledger.connect() as connection:
        connection.execute(
            text("UPDATE webhook SET failing_since = now() - interval '25 hours', due_at = now()")
        )
    receiver.script = [status(500)]
    sender.deliver(endpoint.id)
    assert len(webhooks.set_aside(ledger, "w")) == 1
    assert counts(verify_webhook(ledger, "w", repair=False)) == (PlaceFinding.WHOLE, 2, 2)
    webhooks.retry_set_aside(ledger, "w")
    webhooks.resume(ledger, "w")
    sender.deliver(endpoint.id)
    assert (webhooks.set_aside(ledger, "w"), len(receiver.taken)) == ([], 3)
    assert counts(verify_webhook(ledger, "w")) == (PlaceFinding.WHOLE, 3, 3)


def test_a_webhook_that_skipped_verdicts_sends_them(
    ledger: Engine, receiver: Receiver, sender: Sender
) -> None:
    endpoint = added(ledger, receiver, rating="Unsafe")
    recorded(ledger, 3, rating="Unsafe")
    sender.deliver(endpoint.id)
    verify_webhook(ledger, "w")
    recorded(ledger, 2, first=3, rating="Unsafe")
    recorded(ledger, 2, first=5)
    skip(ledger, ReaderKind.WEBHOOK)
    (found,) = verify_all(ledger, ReaderKind.WEBHOOK)
    assert (*counts(found), found.put_back) == (PlaceFinding.MISSING, 0, 2, True)
    sender.deliver(endpoint.id)
    assert receiver.taken == [f"k{n}" for n in range(5)]
    assert counts(verify_webhook(ledger, "w")) == (PlaceFinding.WHOLE, 2, 2)


def test_a_place_goes_back_and_never_forward(ledger: Engine, url: str) -> None:
    recorded(ledger, 5)
    keys(url)
    assert go_back(ledger, ReaderKind.CONSUMER, "c", START, dry_run=True) == 5
    assert keys(url) == []
    assert go_back(ledger, ReaderKind.CONSUMER, "c", START) == 5
    with pytest.raises(InvalidCursor, match="would skip"):
        go_back(ledger, ReaderKind.CONSUMER, "c", end(ledger))
    assert len(keys(url)) == 5
    with pytest.raises(InvalidWebhook):
        go_back(ledger, ReaderKind.WEBHOOK, "w", START)
    for verify, error in ((verify_consumer, InvalidConsumer), (verify_webhook, InvalidWebhook)):
        with pytest.raises(error):
            verify(ledger, "nobody")


def vetline(*words: str, code: int = 0) -> str:
    done = CliRunner().invoke(command_line(), words)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == code, done.output
    return done.stdout


def test_verify_as_typed(
    ledger: Engine, url: str, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", url)
    added(ledger, receiver)
    recorded(ledger, 3)
    keys(url)
    assert "nothing is missing" in vetline("consumer", "verify", "c")
    assert "nothing is missing" in vetline("webhook", "verify")
    recorded(ledger, 2, first=3)
    skip(ledger, ReaderKind.CONSUMER)
    skip(ledger, ReaderKind.WEBHOOK)
    assert "nothing changed, 2 would come again" in vetline("consumer", "verify", "--dry-run", code=1)
    (found,) = json.loads(vetline("consumer", "verify", "c", "--json", code=1))
    assert (found["finding"], found["given"], found["exist"], found["put_back"]) == ("missing", 0, 2, True)
    assert len(keys(url)) == 2
    assert "put back, 5 come again" in vetline("webhook", "verify", "w", code=1)
    again = json.loads(vetline("consumer", "verify", "c", "--after", "start", "--json"))
    assert again == {"consumer": "c", "put_back": True, "come_again": 5}
    assert len(keys(url)) == 5
    with pytest.raises(BadSetting):
        vetline("consumer", "verify", "--after", "start")

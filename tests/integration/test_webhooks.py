"""Webhooks against receivers that fail, hang and lie: signed, bounded, in order, and none is lost."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import Engine, text

from moderation.cursor import START
from moderation.errors import InvalidUri, InvalidWebhook
from moderation.ledger import deliveries, webhooks
from moderation.ledger.feed import EVERYTHING, Filter
from moderation.webhook import new_secret, probe_message, sign
from tests.support.receiver import OK, Answer, Receiver, cut, drip, flood, hang, status
from tests.support.recorded import record
from tests.support.waiting import wait_for
from worker.webhooks.post import Poster, check_url
from worker.webhooks.sender import Sender
from worker.webhooks.settings import WebhookSettings

QUICK = WebhookSettings(
    allow_hosts=("127.0.0.0/8",),
    allow_http=True,
    total_timeout_s=0.5,
    silence_s=0.3,
    connect_timeout_s=0.5,
    retry_base_s=0.01,
    retry_cap_s=0.05,
    lease_s=5,
)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver(secret=new_secret()) as listening:
        yield listening


@pytest.fixture
def poster() -> Iterator[Poster]:
    made = Poster(QUICK)
    yield made
    made.close()


@pytest.fixture
def sender(ledger: Engine, poster: Poster) -> Sender:
    return Sender(ledger, poster, QUICK, worker="w1")


def added(
    ledger: Engine,
    receiver: Receiver,
    name: str = "hook",
    *,
    path: str = "/hook",
    wanted: Filter = EVERYTHING,
) -> webhooks.Endpoint:
    return webhooks.add_webhook(
        ledger, name, receiver.url(path), secret=receiver.secret, wanted=wanted, start=START
    )


def standing(ledger: Engine, name: str = "hook") -> dict[str, Any]:
    return next(row for row in webhooks.webhooks(ledger) if row["name"] == name)


def recorded(ledger: Engine, count: int, first: int = 0, **fields: Any) -> list[str]:
    with ledger.connect() as connection:
        record(connection, count, first=first, **fields)
    return [f"k{n}" for n in range(first, first + count)]


def work_until(sender: Sender, endpoint: webhooks.Endpoint, reached: Callable[[], object]) -> None:
    """Turn after turn, as the sweeper rings for them."""

    def lease() -> object:
        sender.deliver(endpoint.id)
        return reached()

    wait_for(lease, every_s=0.01, what="delivery")


def test_verdicts_arrive_signed_once_and_in_order(ledger: Engine, receiver: Receiver, sender: Sender) -> None:
    endpoint = added(ledger, receiver, wanted=Filter(rating="Unsafe"))
    recorded(ledger, 70, prefix="safe")
    keys = recorded(ledger, 120, rating="Unsafe")
    sender.deliver(endpoint.id)
    assert receiver.taken == keys
    assert receiver.forged == 0
    assert len(set(receiver.ids)) == len(keys)
    assert receiver.asked[0]["data"]["rating"] == "Unsafe"
    row = standing(ledger)
    assert (row["delivered"], row["behind_s"], row["failures"]) == (120, None, 0)
    sender.deliver(endpoint.id)
    assert len(receiver.taken) == 120


@pytest.mark.parametrize(
    "lie",
    [
        status(500),
        status(429),
        status(301, more="Location: http://127.0.0.1:1/\r\n"),
        status(101),
        cut,
        hang,
        drip,
    ],
    ids=["500", "429", "redirect", "101", "cut", "hang", "drip"],
)
def test_what_is_not_taken_is_sent_again_before_anything_behind_it(
    ledger: Engine, receiver: Receiver, sender: Sender, lie: Answer
) -> None:
    endpoint = added(ledger, receiver)
    keys = recorded(ledger, 4)
    receiver.script = [OK, lie, lie, OK, lie]
    work_until(sender, endpoint, lambda: len(receiver.taken) == 4)
    assert receiver.taken == keys
    again = [asked["data"]["key"] for asked in receiver.asked]
    assert again == ["k0", "k1", "k1", "k1", "k2", "k2", "k3"]
    assert receiver.ids[1] == receiver.ids[2] == receiver.ids[3]
    assert receiver.forged == 0
    assert standing(ledger)["failures"] == 0


def test_an_endless_answer_is_taken_for_its_status_and_read_no_further(
    receiver: Receiver, poster: Poster
) -> None:
    receiver.answer = flood
    assert poster.post(receiver.url(), probe_message("hook"), [receiver.secret]).error is None
    flooded = wait_for(lambda: receiver.flooded)
    assert flooded < 100_000_000  # what fits into the buffers between us; not the gigabyte


def test_a_redirect_to_loopback_or_an_address_that_is_not_public_is_never_asked(
    receiver: Receiver, ledger: Engine
) -> None:
    with Receiver(secret=receiver.secret) as inner:
        receiver.answer = status(307, more=f"Location: {inner.url()}\r\n")
        narrow = Poster(
            WebhookSettings(allow_hosts=(f"127.0.0.1:{receiver.port}",), allow_http=True, total_timeout_s=5)
        )
        message = probe_message("hook")
        assert "redirects" in (narrow.post(receiver.url(), message, [receiver.secret]).error or "")
        for hidden in (inner.url(), f"http://localhost:{inner.port}/", "http://169.254.169.254/latest/"):
            assert "not public" in (narrow.post(hidden, message, [receiver.secret]).error or "")
        narrow.close()
        assert inner.asked == []


def test_a_slow_endpoint_holds_up_no_other(ledger: Engine, receiver: Receiver, sender: Sender) -> None:
    with Receiver(secret=receiver.secret, answer=hang) as slow, ThreadPoolExecutor(1) as pool:
        hanging, quick = added(ledger, slow, "slow"), added(ledger, receiver, "quick")
        keys = recorded(ledger, 50)
        lease = pool.submit(sender.deliver, hanging.id)
        wait_for(lambda: slow.asked)
        sender.deliver(quick.id)
        assert receiver.taken == keys
        lease.result(20)
        assert standing(ledger, "slow")["failures"] == 1
        assert standing(ledger, "slow")["last_error"]


def test_one_lease_at_a_time_and_a_lost_one_changes_nothing(ledger: Engine, receiver: Receiver) -> None:
    endpoint = added(ledger, receiver)
    recorded(ledger, 1)
    first = deliveries.take(ledger, endpoint.id, holder="w1", lease_s=0.2)
    assert first is not None
    assert deliveries.take(ledger, endpoint.id, holder="w2", lease_s=5) is None
    second = wait_for(lambda: deliveries.take(ledger, endpoint.id, holder="w2", lease_s=5))
    assert not deliveries.delivered(ledger, first, START)
    assert not deliveries.failed(ledger, first, "late", delay_s=1, give_up_s=1)
    assert deliveries.delivered(ledger, second, START)


def test_what_fails_for_a_day_is_set_aside_listed_and_sent_again(
    ledger: Engine, receiver: Receiver, sender: Sender
) -> None:
    endpoint = added(ledger, receiver)
    recorded(ledger, 1)
    receiver.answer = status(400)
    sender.deliver(endpoint.id)
    assert webhooks.set_aside(ledger, "hook") == []
    with ledger.connect() as connection:
        connection.execute(
            text("UPDATE webhook SET failing_since = now() - interval '25 hours', due_at = now()")
        )
    sender.deliver(endpoint.id)
    (aside,) = webhooks.set_aside(ledger, "hook")
    assert aside["error"] == "answered 400"
    recorded(ledger, 2, first=1)
    receiver.answer = OK
    work_until(sender, endpoint, lambda: receiver.taken == ["k1", "k2"])
    assert webhooks.retry_set_aside(ledger, "hook") == 1
    receiver.script = [status(500)]
    sender.deliver(endpoint.id)
    assert webhooks.set_aside(ledger, "hook")[0]["error"] == "answered 500"
    assert webhooks.retry_set_aside(ledger, "hook", [aside["assessment_id"]]) == 1
    sender.deliver(endpoint.id)
    assert receiver.taken == ["k1", "k2", "k0"]
    assert webhooks.set_aside(ledger, "hook") == []


def test_the_delay_grows_and_heeds_what_the_endpoint_asks_for(ledger: Engine, receiver: Receiver) -> None:
    endpoint = added(ledger, receiver)
    recorded(ledger, 1)
    slowly = Poster(QUICK)
    sender = Sender(
        ledger, slowly, QUICK.model_copy(update={"retry_base_s": 8, "retry_cap_s": 60}), worker="w1"
    )
    waits = []
    for answer in (*[status(503)] * 4, status(429, more="Retry-After: 600\r\n")):
        receiver.answer = answer
        with ledger.connect() as connection:
            connection.execute(text("UPDATE webhook SET due_at = now()"))
        sender.deliver(endpoint.id)
        with ledger.connect() as connection:
            left = connection.execute(text("SELECT extract(epoch FROM due_at - now())::float FROM webhook"))
            waits.append(left.scalar_one())
    slowly.close()
    for wait_s, bound_s in zip(waits, (8, 16, 32, 60), strict=False):
        assert bound_s / 2 - 5 < wait_s <= bound_s
    assert 590 < waits[4] <= 600


def test_an_endpoint_that_is_gone_is_paused(ledger: Engine, receiver: Receiver, sender: Sender) -> None:
    endpoint = added(ledger, receiver)
    recorded(ledger, 1)
    receiver.script = [status(410)]
    sender.deliver(endpoint.id)
    assert standing(ledger)["paused_because"] == "answered 410"
    sender.deliver(endpoint.id)
    assert len(receiver.asked) == 1
    webhooks.resume(ledger, "hook")
    sender.deliver(endpoint.id)
    assert receiver.taken == ["k0"]


def test_while_a_secret_is_replaced_both_sign(ledger: Engine, receiver: Receiver, sender: Sender) -> None:
    endpoint = added(ledger, receiver)
    old, receiver.secret = receiver.secret, new_secret()
    webhooks.replace_secret(ledger, "hook", receiver.secret, overlap_s=3600)
    recorded(ledger, 1)
    sender.deliver(endpoint.id)
    assert receiver.forged == 0
    body = receiver.asked[0]
    assert body["type"] == "verdict.recorded"
    assert len(receiver.signatures[0]) == 2
    fresh = new_secret()
    webhooks.replace_secret(ledger, "hook", fresh, overlap_s=0)
    receiver.secret = fresh
    recorded(ledger, 1, first=1)
    sender.deliver(endpoint.id)
    assert len(receiver.signatures[1]) == 1
    assert receiver.forged == 0
    assert old not in str(webhooks.webhooks(ledger))


def test_only_what_is_due_is_rung_and_a_lost_message_is_sent_again(
    ledger: Engine, receiver: Receiver
) -> None:
    endpoint = added(ledger, receiver)
    assert deliveries.due(ledger, ring_again_s=30) == []  # nothing to send
    recorded(ledger, 1)
    assert deliveries.due(ledger, ring_again_s=30) == [endpoint.id]
    assert deliveries.due(ledger, ring_again_s=30) == []
    assert wait_for(lambda: deliveries.due(ledger, ring_again_s=0.1)) == [endpoint.id]
    webhooks.pause(ledger, "hook", because="a test")
    time.sleep(0.1)
    assert deliveries.due(ledger, ring_again_s=0.01) == []


def test_a_sender_that_stops_ends_behind_the_delivery_under_way(
    ledger: Engine, receiver: Receiver, poster: Poster
) -> None:
    endpoint = added(ledger, receiver)
    keys = recorded(ledger, 30)
    stopping = Sender(ledger, poster, QUICK, worker="w1")
    under_way = threading.Event()

    def last(found: Receiver, wire: Any) -> None:
        found.taken.append(found.asked[-1]["data"]["key"])
        under_way.set()
        stopping.stop()
        status(204)(found, wire)

    receiver.script = [OK, OK, last]
    stopping.deliver(endpoint.id)
    assert under_way.is_set()
    assert receiver.taken == keys[:3]
    Sender(ledger, poster, QUICK, worker="w2").deliver(endpoint.id)
    assert receiver.taken == keys


def test_a_url_that_cannot_be_sent_to_safely_is_refused() -> None:
    strict = WebhookSettings()
    assert check_url("https://hooks.example/x", strict).host == "hooks.example"
    for wrong, error in (
        ("http://hooks.example/", InvalidWebhook),
        ("https://user:pass@hooks.example/", InvalidWebhook),
        ("file:///etc/passwd", InvalidUri),
        ("https://0x7f000001/", InvalidUri),
    ):
        with pytest.raises(error):
            check_url(wrong, strict)


def test_the_signature_is_the_schemes_own() -> None:
    """The example of the Standard Webhooks libraries."""
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    body = b'{"test": 2432232314}'
    signed = sign(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body)
    assert signed == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="

"""Our transport beside kombu's own, on a Redis that dies: the two defects that it takes out of the way.

When a test of the stock transport fails, kombu has mended that defect and our part of `moderation/transport.py` can go.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import redis
from kombu import Connection, Exchange, Queue
from kombu.transport import redis as kombu_redis

from moderation.services.redis import LocalRedis
from moderation.transport import Transport

QUEUE = Queue("vetline", Exchange(""), routing_key="vetline")
STOCK = kombu_redis.Transport


@contextmanager
def consuming(url: str, transport: type, *, messages: int = 1) -> Iterator[tuple[Any, list[Any]]]:
    """A channel with messages delivered and not acknowledged, and the next BRPOP under way."""
    connection = Connection(url, transport=transport, transport_options={"socket_timeout": 2})
    channel: Any = connection.channel()
    received: list[Any] = []
    consumer = connection.Consumer(QUEUE, channel=channel, callbacks=[lambda _, m: received.append(m)])
    producer = connection.Producer(channel=connection.channel())
    for number in range(messages):
        producer.publish(number, routing_key=QUEUE.name)
    consumer.consume()
    while len(received) < messages:
        connection.drain_events(timeout=5)
    with pytest.raises(TimeoutError):
        connection.drain_events(timeout=0.1)  # starts the BRPOP that the tests below leave hanging
    try:
        yield channel, received
    finally:
        channel.qos._on_collect.cancel()  # stock would restore its messages when the interpreter exits


def in_hand(channel: Any) -> int:
    """What counts against the prefetch limit."""
    return len(channel.qos._delivered) - len(channel.qos._dirty)


@pytest.mark.parametrize(("transport", "left"), [(STOCK, 1), (Transport, 0)])
def test_an_acknowledgement_that_redis_does_not_hear_gives_its_slot_back(
    own_redis: LocalRedis, transport: type, left: int
) -> None:
    with consuming(own_redis.url, transport) as (channel, received):
        own_redis.kill()
        try:
            received[0].ack()
        except redis.ConnectionError:
            assert transport is STOCK
        assert in_hand(channel) == left


@pytest.mark.parametrize("transport", [STOCK, Transport])
def test_a_channel_on_a_dead_redis_closes(own_redis: LocalRedis, transport: type) -> None:
    with consuming(own_redis.url, transport) as (channel, _):
        own_redis.kill()
        if transport is STOCK:
            with pytest.raises(redis.ConnectionError):
                channel.close()
        else:
            channel.close()


def test_nothing_but_the_queue_is_kept_in_redis(own_redis: LocalRedis) -> None:
    with consuming(own_redis.url, Transport, messages=3) as (channel, received):
        client = redis.Redis.from_url(own_redis.url)
        keys = {key for key in client.scan_iter() if not key.startswith(b"_kombu.binding")}
        assert in_hand(channel) == 3
        for message in received:
            message.ack()
        assert in_hand(channel) == 0
        assert keys == set()
        client.close()


def test_a_message_that_nobody_consumes_any_more_is_put_back(own_redis: LocalRedis) -> None:
    """What kombu does with a reply that was under way when the queue was cancelled: the gate relies on it."""
    with consuming(own_redis.url, Transport, messages=2) as (channel, received):
        first, second = received
        second.reject()
        first.requeue()
        assert in_hand(channel) == 0
        channel.connection.client.drain_events(timeout=5)
        assert [m.payload for m in received] == [0, 1, 0]


def test_a_message_in_hand_is_not_put_back_when_the_connection_is_lost(own_redis: LocalRedis) -> None:
    """Its row is running under a lease: a second message would only be dropped at the claim."""
    with consuming(own_redis.url, Transport) as (channel, _):
        channel.close()
    with redis.Redis.from_url(own_redis.url) as client:
        assert client.llen("vetline") == 0

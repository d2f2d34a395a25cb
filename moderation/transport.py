"""Celery's transport to Redis, less what the ledger makes needless, and with prefetch counted in threads.

The ledger's claim decides who works on what, so a message needs no record of its delivery: nothing is kept in
Redis' `unacked` keys, no acknowledgement travels, no visibility timeout restores anything. A message that is lost
rings again from the ledger; one that comes twice is dropped at the claim. That leaves a quarter of the commands, and
takes two defects of kombu 5.7.0 out of the way:

- an acknowledgement that fails (Redis restarting) leaks its prefetch slot until the worker stalls in silence: here
  acknowledging touches nothing but memory;
- closing a channel whose BRPOP socket is dead raises, and the worker exits with code 1: `close` reads that socket
  first and swallows its error.

`tests/integration/test_transport.py` fails when kombu has mended them.

A message may ring several rows (see moderation.doorbell), so a limit on messages would say little about the work in
hand: until it is taken a message counts for the threads that its rows will need, from then on for its own, and the
worker says how many others are at work.
"""

import threading
from collections.abc import Callable
from queue import Empty
from typing import Any

from kombu.transport import redis as kombu_redis
from kombu.transport import virtual
from kombu.utils.json import dumps

from moderation.broker import quiet
from moderation.doorbell import MORE


class QoS(kombu_redis.QoS):
    """Counts busy threads, in memory alone, so that prefetch means concurrency.

    weigh: how many threads a message of so many rows will need. apart: how many threads are at work on rows that were
    taken out of their messages. Both are the worker's to set.
    """

    restore_at_shutdown = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.weigh: Callable[[int], int] = lambda rows: rows
        self.apart: Callable[[], int] = lambda: 0
        self._more: dict[str, int] = {}  # threads beside its own, of messages that were not taken yet
        self._counting = threading.Lock()  # taken and acknowledged in the threads that work

    @property
    def threads(self) -> int:
        """Threads at work, or about to be."""
        with self._counting:
            more = sum(self._more.values())
        return len(self._delivered or ()) - len(self._dirty or ()) + more + self.apart()

    def can_consume(self) -> bool:
        return not self.prefetch_count or self.threads < self.prefetch_count

    def append(self, message: Any, delivery_tag: str) -> None:
        virtual.QoS.append(self, message, delivery_tag)
        if others := (message.headers or {}).get(MORE):
            with self._counting:
                self._more[delivery_tag] = self.weigh(1 + len(others)) - 1

    def taken(self, delivery_tag: str) -> None:
        """What came in this message beside its first row is put back, or at work and counted apart."""
        with self._counting:
            self._more.pop(delivery_tag, None)

    def ack(self, delivery_tag: str) -> None:
        virtual.QoS.ack(self, delivery_tag)
        self.taken(delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Put back at the end that is read next, where that is asked for: nobody consumes here for now."""
        try:
            delivered: dict[str, Any] = self._delivered or {}
            if requeue and delivery_tag in delivered:
                self._put_back(delivered[delivery_tag])
        finally:
            self.ack(delivery_tag)

    def _put_back(self, message: Any) -> None:
        delivery = message.delivery_info
        channel: Any = self.channel  # kombu's stubs know little of it
        with channel.conn_or_acquire() as client, client.pipeline() as pipe:
            channel._do_restore_message(message._raw, delivery["exchange"], delivery["routing_key"], pipe)
            pipe.execute()

    def restore_unacked(self, client: Any = None) -> None:
        if self._delivered is not None:
            self._delivered.clear()
        with self._counting:
            self._more.clear()

    def restore_visible(self, *args: Any, **kwargs: Any) -> None:
        """Nothing is kept in Redis, so nothing is overdue there."""


class Channel(kombu_redis.Channel):
    """A Redis channel with the QoS above, and connections that say no more than those of `moderation.broker`.

    on_heard: called after each event with how many clients it reached; set by who wants to know.
    """

    QoS = QoS
    on_heard: Callable[[int], object] = staticmethod(lambda _: None)
    _one_client: Any = None
    _in_poll: Any  # kombu sets these two where no type checker sees it
    connection_errors: tuple[type[Exception], ...]

    def close(self) -> None:
        if self._in_poll:
            try:
                self._brpop_read()  # type: ignore[attr-defined]  # not in kombu's stubs
            except Empty:
                pass
            except self.connection_errors:
                self._in_poll = None
        super().close()

    def _create_client(self, asynchronous: bool = False) -> Any:
        """One for each pool: kombu makes a new one for each event."""
        if asynchronous:
            return super()._create_client(asynchronous=True)  # type: ignore[misc]  # not in kombu's stubs
        pool = self.pool
        if self._one_client is None or self._one_client.connection_pool is not pool:
            self._one_client = super()._create_client()  # type: ignore[misc]  # as above
        return self._one_client

    def _put_fanout(self, exchange: str, message: Any, routing_key: str, **kwargs: Any) -> None:
        if "_publish_batch" in kwargs:
            super()._put_fanout(exchange, message, routing_key, **kwargs)  # type: ignore[misc]  # as above
            return
        payload = dumps(message)
        topics = self._get_publish_topics(exchange, routing_key)  # type: ignore[attr-defined]  # as above
        self.on_heard(sum(self._create_client().publish(topic, payload) for topic in topics))

    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:
        parameters: dict[str, Any] = super()._connparams(asynchronous)  # type: ignore[misc]  # not in kombu's stubs
        return parameters | quiet()


class Transport(kombu_redis.Transport):
    """Named in `broker_transport`."""

    Channel = Channel

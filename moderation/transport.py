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

What lies in a list or comes over a channel is a stranger's bytes, and kombu trusts them: a header of another type, or
JSON that is no object, ends its process. So each is read by `moderation.message_check` first, and nothing that is not
of ours reaches kombu. In a list of rows it is set aside, to where messages of plain clients are read and listed.

A message may ring several rows (see moderation.doorbell), so a limit on messages would say little about the work in
hand: until it is taken a message counts for the threads that its rows will need, from then on for its own, and the
worker says how many others are at work.
"""

import itertools
import threading
from collections.abc import Callable
from queue import Empty
from typing import Any

from kombu.transport import redis as kombu_redis
from kombu.transport import virtual
from kombu.utils.json import dumps

from moderation import metrics
from moderation.broker import quiet
from moderation.doorbell import MORE
from moderation.log import get_logger
from moderation.message_check import MalformedMessage, read_fanout, read_reply, read_ring, row_of

log = get_logger(__name__)

RINGS, SET_ASIDE = (
    "vetline_rings",
    "vetline_set_aside",
)  # transport options: queues of rows, the list of plain clients


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
                self._more[row_of(delivery_tag)] = self.weigh(1 + len(others)) - 1

    def taken(self, row: str) -> None:
        """What came in this row's message beside it is put back, or at work and counted apart."""
        with self._counting:
            self._more.pop(row, None)

    def ack(self, delivery_tag: str) -> None:
        virtual.QoS.ack(self, delivery_tag)
        self.taken(row_of(delivery_tag))

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
    _in_poll: Any  # kombu sets these where no type checker sees it
    _in_listen: Any
    _queue_cycle: Any
    client: Any
    sep: str
    connection_errors: tuple[type[Exception], ...]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        transport: Any = self.connection
        options: dict[str, Any] = transport.client.transport_options or {}
        self._rings = frozenset(options.get(RINGS, ()))
        self._set_aside_in: str | None = options.get(SET_ASIDE)
        self._serial = itertools.count()

    def close(self) -> None:
        if self._in_poll:
            try:
                self._brpop_read()
            except Empty:
                pass
            except self.connection_errors:
                self._in_poll = None
        super().close()

    def basic_consume(self, queue: str, *args: Any, **kwargs: Any) -> Any:
        """As kombu's; but the list of plain clients is never popped from here, whoever asks for it."""
        if queue == self._set_aside_in:
            log.warning("queue_not_consumed", queue=queue)
            return None
        return super().basic_consume(queue, *args, **kwargs)

    def _brpop_read(self, **options: Any) -> bool:
        """As kombu's, but that the message is read by us."""
        try:
            try:
                reply = self.client.parse_response(self.client.connection, "BRPOP", **options)
            except self.connection_errors:
                self.client.connection.disconnect()
                raise
            if not reply:
                raise Empty
            key, raw = reply
            queue = key.decode("utf-8", "replace").rsplit(self.sep, 1)[0]
            self._queue_cycle.rotate(queue)
            self._receive_from(queue, raw)
            return True
        finally:
            self._in_poll = None
            self._flush_brpop_reauth()  # type: ignore[attr-defined]  # not in kombu's stubs

    def _receive_from(self, queue: str, raw: bytes) -> None:
        is_ring = queue in self._rings
        try:
            message = read_ring(raw, queue, serial=next(self._serial)) if is_ring else read_reply(raw)
        except MalformedMessage as exc:
            self._set_aside(queue, raw, exc)
            return
        self._deliver(message, queue, where="ring" if is_ring else "reply")

    def _set_aside(self, queue: str, raw: bytes, why: MalformedMessage) -> None:
        """To where it is judged by what it says, and listed: nobody but us has anything to ring."""
        is_ring = queue in self._rings
        metrics.MALFORMED.labels("ring" if is_ring else "reply").inc()
        log.warning("message_set_aside", queue=queue, bytes=len(raw), reason=str(why))
        if is_ring and self._set_aside_in is not None:
            self._create_client().lpush(self._set_aside_in, raw)

    def _deliver(self, message: dict[str, Any], queue: str, *, where: str) -> None:
        """Whatever it makes Celery raise, the consumer goes on, and its slot is free again."""
        transport: Any = self.connection  # kombu's stubs know little of it
        try:
            transport._deliver(message, queue)
        except self.connection_errors:
            raise
        except Exception:
            metrics.MALFORMED.labels(where).inc()
            log.exception("message_failed", queue=queue)
            self.qos.ack(message["properties"]["delivery_tag"])

    def _receive_one(self, c: Any) -> bool | None:
        """As kombu's, but that the message is read by us."""
        try:
            response = c.parse_response()
        except self.connection_errors:
            self._in_listen = None
            raise
        if not isinstance(response, list | tuple):
            return None
        payload = self._handle_message(c, response)  # type: ignore[attr-defined]  # not in kombu's stubs
        if not _text(payload["type"]).endswith("message") or not payload["data"]:
            return None
        channel = _text(payload["channel"])
        exchange = (channel.partition(".")[2] if channel.startswith("/") else channel).split("/", 1)[0]
        where = "event" if exchange.startswith("celeryev") else "control"
        try:
            message, queue = read_fanout(payload["data"], exchange), self._fanout_to_queue[exchange]  # type: ignore[attr-defined]
        except (MalformedMessage, KeyError) as exc:
            metrics.MALFORMED.labels(where).inc()
            log.warning(
                "message_set_aside", channel=channel[:200], bytes=len(payload["data"]), reason=str(exc)
            )
            raise Empty from None
        self._deliver(message, queue, where=where)
        return True

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


def _text(name: bytes | str) -> str:
    return name.decode("utf-8", "replace") if isinstance(name, bytes) else name


class Transport(kombu_redis.Transport):
    """Named in `broker_transport`."""

    Channel = Channel

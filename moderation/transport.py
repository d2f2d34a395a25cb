"""Celery's transport to Redis, less what the ledger makes needless.

The ledger's claim decides who works on what, so a message needs no record of its delivery: nothing is kept in
Redis' `unacked` keys, no acknowledgement travels, no visibility timeout restores anything. A message that is lost
rings again from the ledger; one that comes twice is dropped at the claim. That leaves a quarter of the commands, and
takes two defects of kombu 5.7.0 out of the way:

- an acknowledgement that fails (Redis restarting) leaks its prefetch slot until the worker stalls in silence: here
  acknowledging touches nothing but memory;
- closing a channel whose BRPOP socket is dead raises, and the worker exits with code 1: `close` reads that socket
  first and swallows its error.

`tests/integration/test_transport.py` fails when kombu has mended them.
"""

from queue import Empty
from typing import Any

from kombu.transport import redis as kombu_redis
from kombu.transport import virtual

from moderation.broker import QUIET


class QoS(kombu_redis.QoS):
    """Counts what is in hand, in memory alone, so that prefetch means concurrency."""

    restore_at_shutdown = False

    def append(self, message: Any, delivery_tag: str) -> None:
        virtual.QoS.append(self, message, delivery_tag)

    def ack(self, delivery_tag: str) -> None:
        virtual.QoS.ack(self, delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Put back at the end that is read next, where that is asked for: nobody consumes here for now."""
        try:
            delivered: dict[str, Any] = self._delivered or {}
            if requeue and delivery_tag in delivered:
                self._put_back(delivered[delivery_tag])
        finally:
            virtual.QoS.ack(self, delivery_tag)

    def _put_back(self, message: Any) -> None:
        told = message.delivery_info
        channel: Any = self.channel  # kombu's stubs know little of it
        with channel.conn_or_acquire() as client, client.pipeline() as pipe:
            channel._do_restore_message(message._raw, told["exchange"], told["routing_key"], pipe)
            pipe.execute()

    def restore_unacked(self, client: Any = None) -> None:
        if self._delivered is not None:
            self._delivered.clear()

    def restore_visible(self, *args: Any, **kwargs: Any) -> None:
        """Nothing is kept in Redis, so nothing is overdue there."""


class Channel(kombu_redis.Channel):
    """A Redis channel with the QoS above, and connections that say no more than those of `moderation.broker`."""

    QoS = QoS
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

    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:
        parameters: dict[str, Any] = super()._connparams(asynchronous)  # type: ignore[misc]  # not in kombu's stubs
        return parameters | QUIET


class Transport(kombu_redis.Transport):
    """Named in `broker_transport`."""

    Channel = Channel

"""The doorbell: messages in Redis that say which row is due. Redis holds nothing that Postgres does not know.

A message is an ordinary Celery one (protocol 2, JSON), built here and pushed many at a time: one LPUSH carries what
would be hundreds of `apply_async` calls. It names the id, the URI without its secrets, and the policy, so that Flower
shows something a person can read. It may ring more rows beside the first: their ids are in a header of its own.
"""

import base64
import os
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import UUID

from pydantic_core import from_json, to_json

from moderation.broker import connect, reaching_redis, read_broker
from moderation.redaction import redact_uri
from moderation.settings import QueueSettings

TASK = "vetline.assess"
MORE = "vetline_more"  # the header with the ids of further rows; a release that does not know it leaves them to ring again
_SHOWN_URI = 200  # characters; enough to tell images apart in Flower


class Call(Protocol):
    """What a message is about; rows of the ledger's sweep and of submit are calls."""

    @property
    def id(self) -> UUID: ...
    @property
    def uri(self) -> str: ...
    @property
    def policy(self) -> str: ...
    @property
    def priority(self) -> int: ...
    @property
    def crashes(self) -> int: ...
    @property
    def submission_id(self) -> UUID | None: ...


@dataclass(frozen=True, slots=True)
class _Again:
    """A row whose message is split up; its URI and policy are the ledger's to know."""

    id: UUID
    uri: str = ""
    policy: str = ""
    priority: int = 1
    crashes: int = 0
    submission_id: UUID | None = None


class Doorbell:
    """Rings rows in one Redis list. Safe to use from many threads."""

    def __init__(self, redis_url: str, settings: QueueSettings | None = None) -> None:
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        self._settings = settings or QueueSettings()
        self._queues = tuple(self._settings.key_prefix + name for name in self._settings.names)
        self._origin = f"{os.getpid()}@{socket.gethostname()}"
        self._broker = read_broker(redis_url)
        self._redis = connect(
            self._broker,
            socket_timeout=self._settings.socket_timeout_s,
            socket_connect_timeout=self._settings.socket_timeout_s,
            retry=Retry(NoBackoff(), 1),  # a connection that idled away is replaced once, at once
            health_check_interval=0,
        )

    def depth(self) -> int:
        """Messages waiting, in both queues. Raises BrokerUnavailable."""
        return sum(self.depths())

    def depths(self) -> tuple[int, int]:
        """Messages waiting: urgent ones, and the others. Raises BrokerUnavailable."""
        with reaching_redis(self._broker), self._redis.pipeline(transaction=False) as pipe:
            for queue in self._queues:
                pipe.llen(queue)
            urgent, others = pipe.execute()
            return int(urgent), int(others)

    def waiting(self) -> list[UUID]:
        """The assessments that messages in the queues name. Raises BrokerUnavailable."""
        with reaching_redis(self._broker):
            messages = [message for queue in self._queues for message in self._redis.lrange(queue, 0, -1)]
        return [id_ for message in messages for id_ in _named_in(message)]

    def ring(self, calls: Sequence[Call], *, bundle: int = 1) -> tuple[int, int]:
        """Push messages for these calls, and say how deep the two queues then are. Raises BrokerUnavailable.

        bundle: how many calls may share a message. What was in hand at a death never does: it is looked at alone.

        Urgent calls (high priority, or freed from a dead worker) go into a queue of their own, of which workers
        read every other message: they pass whatever waits, in their own order, and starve nobody.
        Siblings, one image under several policies, are rung by the first of them: with it all are claimed.
        """
        calls = _one_each(calls)
        urgent, others = self._queues
        with reaching_redis(self._broker), self._redis.pipeline(transaction=False) as pipe:
            for queue, is_urgent in ((urgent, True), (others, False)):
                mine = [call for call in calls if _is_urgent(call) is is_urgent]
                if messages := [self._message(*together) for together in _bundles(mine, bundle)]:
                    pipe.lpush(queue, *messages)
                else:
                    pipe.llen(queue)
            depths = pipe.execute()
        return int(depths[0]), int(depths[1])

    def put_back(self, ids: Sequence[UUID]) -> None:
        """Ring these rows next, together: they came in a message that was too large for who took it.

        Raises BrokerUnavailable.
        """
        with reaching_redis(self._broker):
            self._redis.rpush(self._queues[1], self._message(*map(_Again, ids)))

    def close(self) -> None:
        self._redis.close()

    def _message(self, call: Call, *more: Call) -> bytes:
        id_ = str(call.id)
        shown = _shown(call.uri)
        kwargs = {"id": id_, "uri": shown, "policy": call.policy}
        body = to_json([[], kwargs, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}])
        envelope: dict[str, Any] = {
            "body": base64.b64encode(body).decode(),
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": {
                "lang": "py",
                "task": TASK,
                "id": id_,
                "root_id": id_,
                "parent_id": None,
                "group": None,
                "argsrepr": "()",
                "kwargsrepr": _kwargsrepr(shown, call.policy),
                "origin": self._origin,
                "ignore_result": True,
                MORE: [str(other.id) for other in more],
            },
            "properties": {
                "correlation_id": id_,
                "delivery_mode": 2,
                "delivery_info": {"exchange": "", "routing_key": self._settings.name},
                "priority": 0,
                "body_encoding": "base64",
                "delivery_tag": id_,
            },
        }
        return to_json(envelope)


def shown_kwargs(uri: str, policy: str) -> str:
    """What Flower is told that a task is about: an image without its secrets, and a policy."""
    return _kwargsrepr(_shown(uri), policy)


def _shown(uri: str) -> str:
    return redact_uri(uri)[:_SHOWN_URI]


def _kwargsrepr(shown: str, policy: str) -> str:
    return f"{{'uri': {shown!r}, 'policy': {policy!r}}}"


def _named_in(message: bytes | str) -> list[UUID]:
    """The ids in a message of ours; none in one of a plain Celery client."""
    try:
        headers = from_json(message)["headers"]
        return (
            [UUID(id_) for id_ in (headers["id"], *headers.get(MORE, ()))] if headers["task"] == TASK else []
        )
    except (ValueError, KeyError, TypeError):
        return []


def _is_urgent(call: Call) -> bool:
    return call.priority == 0 or call.crashes > 0


def _bundles(calls: Sequence[Call], size: int) -> Iterator[Sequence[Call]]:
    alone = [call for call in calls if call.crashes > 0]
    others = [call for call in calls if call.crashes == 0]
    yield from ([call] for call in alone)
    yield from (others[start : start + size] for start in range(0, len(others), size))


def _one_each(calls: Sequence[Call]) -> list[Call]:
    """The first call of each submission, in order."""
    firsts: dict[UUID, Call] = {}
    for call in calls:
        firsts.setdefault(call.submission_id or call.id, call)
    return list(firsts.values())

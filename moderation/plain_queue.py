"""The lists that plain Celery clients push to, and taking from them so that a death loses nothing.

For such a message the queue is the only record there is. A script moves it to a hash of what is in hand, in one step;
it leaves that hash once its row is committed. What stays there longer than a commit can take was a dead worker's and
goes back to the end of its list that is read next.

kombu has a list for each priority beside the queue's own. The names are a client's to choose, so all are read.
"""

import itertools
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from kombu.utils.scheduling import cycle_by_name
from redis.backoff import NoBackoff
from redis.retry import Retry

from moderation.broker import connect, reaching_redis, read_broker
from moderation.celery_message import MAX_MESSAGE_BYTES
from moderation.settings import QueueSettings

CELERYS_OWN = "celery"  # where a client pushes that names no queue
_SEPARATOR = "\x06\x16"  # kombu's, between a queue's name and a priority's number
STEPS = range(1, 10)  # kombu uses 3, 6 and 9 unless it is told others
_TAKE_BYTES = 4 * MAX_MESSAGE_BYTES  # of one turn, so that large messages do not come a hundred at a time
_HEAD_BYTES = 4096  # of a message that is larger than is read: enough to tell whose it is

# An element that is too large stays in Redis' memory alone; what lies there in the place of a list is passed over.
_TAKE = """
local taken, bytes = {}, 0
local now = redis.call('TIME')[1]
for a = 6, #ARGV do
    local key = KEYS[2 + ARGV[a]]
    while #taken < 2 * ARGV[2] and bytes < tonumber(ARGV[5]) do
        local item = redis.pcall('RPOP', key)
        if not item or type(item) == 'table' then break end
        local size = #item
        if size > tonumber(ARGV[3]) then item = string.sub(item, 1, tonumber(ARGV[4])) end
        local tag = ARGV[1] .. ':' .. (#taken / 2)
        local kept = key .. '\\n' .. size .. '\\n' .. item
        redis.call('HSET', KEYS[1], tag, kept)
        redis.call('ZADD', KEYS[2], now, tag)
        taken[#taken + 1] = tag
        taken[#taken + 1] = kept
        bytes = bytes + #item
    end
end
return taken
"""

# ARGV[1]: seconds, or -1 for those that are named after it.
_RETURN = """
local tags = {}
if tonumber(ARGV[1]) >= 0 then
    local since = redis.call('TIME')[1] - ARGV[1]
    tags = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', since, 'LIMIT', 0, 100)
else
    for i = #ARGV, 2, -1 do tags[#tags + 1] = ARGV[i] end
end
local count = 0
for _, tag in ipairs(tags) do
    local kept = redis.call('HGET', KEYS[1], tag)
    local key, item
    if kept then key, item = string.match(kept, '^([^\\n]+)\\n%d+\\n(.*)$') end
    if not key or type(redis.pcall('RPUSH', key, item)) ~= 'table' then
        if key then count = count + 1 end
        redis.call('HDEL', KEYS[1], tag)
        redis.call('ZREM', KEYS[2], tag)
    end
end
return count
"""


@dataclass(frozen=True, slots=True)
class Taken:
    """A message in hand. raw: all of it, or its head where `size` (bytes) is more. step: of its priority's list."""

    tag: str
    raw: bytes
    size: int
    queue: str
    step: int


class PlainQueue:
    """Takes messages of plain clients from all their lists. Safe to use from many threads."""

    def __init__(self, redis_url: str, settings: QueueSettings | None = None) -> None:
        settings = settings or QueueSettings()
        prefix = settings.key_prefix
        self.queues = settings.plain_names
        self._lists = plain_lists(self.queues)
        self._keys = [prefix + name for name, _, _ in self._lists]
        self._hand = [f"{prefix}{settings.name}.taken", f"{prefix}{settings.name}.taken_at"]
        self._cycle = cycle_by_name(settings.order_strategy)(list(self.queues))
        self._prefix = prefix
        self._overdue_s = settings.taken_s
        self._me, self._turns = uuid4().hex, itertools.count()
        self._lock = threading.Lock()
        self._broker = read_broker(redis_url)
        self._redis = connect(
            self._broker,
            socket_timeout=settings.socket_timeout_s,
            socket_connect_timeout=settings.socket_timeout_s,
            retry=Retry(NoBackoff(), 1),
            health_check_interval=0,
        )
        self._take = self._redis.register_script(_TAKE)
        self._return = self._redis.register_script(_RETURN)

    def take(self, most: int) -> list[Taken]:
        """Up to `most` messages, the first priority's first. Raises BrokerUnavailable."""
        with self._lock:
            order = self._in_turn()
        me = f"{self._me}:{next(self._turns)}"
        arguments: list[str | int] = [me, most, MAX_MESSAGE_BYTES, _HEAD_BYTES, _TAKE_BYTES, *order]
        with reaching_redis(self._broker):
            found: Any = self._take(keys=[*self._hand, *self._keys], args=arguments)
        return [self._read(tag, kept) for tag, kept in zip(found[::2], found[1::2], strict=True)]

    def done(self, taken: Sequence[Taken]) -> None:
        """They stand in the ledger: forget them. Raises BrokerUnavailable; then they come once more."""
        if not taken:
            return
        tags = [one.tag for one in taken]
        with reaching_redis(self._broker), self._redis.pipeline(transaction=True) as pipe:
            pipe.hdel(self._hand[0], *tags)
            pipe.zrem(self._hand[1], *tags)
            pipe.execute()

    def put_back(self, taken: Sequence[Taken]) -> None:
        """Next to be taken again, in their order. Raises BrokerUnavailable; then they are overdue after a while."""
        if taken:
            self._returned(-1, *(one.tag for one in taken))

    def return_overdue(self) -> int:
        """Put back what has been in hand for longer than VETLINE_QUEUE_TAKEN_S; how many. Raises BrokerUnavailable."""
        return self._returned(int(self._overdue_s))

    def depths(self) -> dict[str, int]:
        """Messages that wait, by queue, with Celery's own among them. Raises BrokerUnavailable."""
        lists = plain_lists(tuple(dict.fromkeys((*self.queues, CELERYS_OWN))))
        found = dict.fromkeys((queue for _, queue, _ in lists), 0)
        with reaching_redis(self._broker), self._redis.pipeline(transaction=False) as pipe:
            for name, _, _ in lists:
                pipe.llen(self._prefix + name)
            for (_, queue, _), length in zip(lists, pipe.execute(raise_on_error=False), strict=True):
                if isinstance(length, Exception):
                    if "WRONGTYPE" not in str(length):
                        raise length
                    continue
                found[queue] += int(length)
        return found

    def is_empty(self) -> bool:
        """Whether nothing waits in the lists that are read, and nothing is in hand. Raises BrokerUnavailable."""
        with reaching_redis(self._broker), self._redis.pipeline(transaction=True) as pipe:
            for key in self._keys:
                pipe.llen(key)
            pipe.hlen(self._hand[0])
            return not any(pipe.execute())

    def close(self) -> None:
        self._redis.close()

    def _returned(self, *arguments: str | int) -> int:
        with reaching_redis(self._broker):
            return int(self._return(keys=self._hand, args=arguments))

    def _read(self, tag: bytes, kept: bytes) -> Taken:
        key, size, raw = kept.split(b"\n", 2)
        _, queue, step = self._lists[self._keys.index(key.decode())]
        return Taken(tag.decode(), raw, int(size), queue, step)

    def _in_turn(self) -> list[int]:
        """The numbers, from 1 on, of all lists in their order now: a priority's before the next one's."""
        queues = list(self._cycle.consume(len(self.queues)))
        self._cycle.rotate(queues[0])
        return [self._lists.index(one) + 1 for one in plain_lists(tuple(queues))]


def plain_lists(queues: Sequence[str]) -> list[tuple[str, str, int]]:
    """Each list of these queues: its name, its queue, its priority's step. The first priority's lists come first."""
    first = [(queue, queue, 0) for queue in queues]
    return first + [(f"{queue}{_SEPARATOR}{step}", queue, step) for step in STEPS for queue in queues]

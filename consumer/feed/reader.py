"""Feed: reads, waits and acknowledges, for threads."""

import bisect
import os
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Self

from consumer.feed.settings import FeedSettings
from moderation.cursor import NOW, START, Cursor
from moderation.errors import BadSetting, ConsumerTaken, InvalidConsumer, InvalidCursor, LedgerUnavailable
from moderation.ledger import consumers
from moderation.ledger.engine import open_ledger
from moderation.ledger.feed import Filter, check_place, end, read
from moderation.ledger.notify import Listener
from moderation.log import get_logger
from moderation.published import PublishedVerdict
from moderation.settings import LedgerSettings, ServiceSettings

log = get_logger(__name__)

_NAME_LENGTH = 200
_FIRST_RETRY_S, _LAST_RETRY_S = 0.5, 10.0  # of a Postgres that is away
_RENEW_AT = 0.4  # of a lease; leaves room for one renewal that fails


class Feed:
    """Verdicts in order. For one thread; use as a context manager or call `close`.

    after: where to begin: a cursor or its text, NOW, or None for the first verdict. A named consumer that is known
    goes on from its own place instead.
    consumer: a name whose place is kept in Postgres. Its verdicts come at least once, in order: what was not
    acknowledged comes again. Several processes may share a name; one reads and the others stand by.
    policy, rating, category, batch: only such verdicts. A consumer keeps its filter for life.
    Raises InvalidCursor, InvalidConsumer, LedgerUnavailable, BadSetting where no database is named.
    """

    def __init__(
        self,
        *,
        after: Cursor | str | None = None,
        consumer: str | None = None,
        policy: str | None = None,
        rating: str | None = None,
        category: str | None = None,
        batch: str | None = None,
        database_url: str | None = None,
        settings: FeedSettings | None = None,
    ) -> None:
        self._settings = settings or FeedSettings()
        self._filter = Filter(policy=policy, rating=rating, category=category, batch=batch)
        self._name = None if consumer is None else _checked(consumer)
        self._engine = open_ledger(_database(database_url), LedgerSettings(pool_size=2))
        self._listener = Listener(self._engine)
        self._closed = threading.Event()
        self._reader: consumers.ConsumerLease | None = None
        self._renew_at = 0.0  # by the monotonic clock
        self._acknowledged: Cursor | None = None
        self._unsettled = False  # more is committed than can be read yet
        self._unacknowledged: Cursor | None = None  # up to here verdicts went out and are not acknowledged
        self._out: list[Cursor] = []  # what went out and is not acknowledged, under a name
        self._count = 0  # verdicts that were given out under the name and acknowledged, ever
        try:
            self._place = self._begin(after)
        except BaseException:
            self.close()
            raise

    @property
    def cursor(self) -> Cursor:
        """The place behind all that was read. Hand it to `after` to go on from here."""
        return self._place

    def next_batch(self) -> Sequence[PublishedVerdict]:
        """What can be read now, at most a batch: empty where that is nothing, or another process has the name.

        What it gave before must be acknowledged, or it is given again after a restart. Raises ConsumerTaken.
        """
        if not self._may_read():
            return []
        while not self._closed.is_set():
            page = read(self._engine, self._place, self._filter, limit=self._settings.batch_size)
            self._place = page.upto
            if page.verdicts:
                self._unacknowledged = page.upto
                if self._name is not None:
                    self._out += [verdict.cursor for verdict in page.verdicts]
                return page.verdicts
            self._renew()
            if page.done:
                self._unsettled = page.unsettled
                break
        return []

    def acknowledge(self, upto: Cursor | None = None) -> None:
        """Everything up to this verdict's cursor is dealt with and never comes again; None: all that was given.

        Raises ConsumerTaken where the lease ran out and another process took the name: the same verdicts come there.
        Raises InvalidCursor for a place that this feed has not read up to: what lies before it would be skipped.
        """
        place = upto if upto is not None else self._place
        if place > self._place:
            raise InvalidCursor(
                "only what was read can be acknowledged; `vetline consumer move` skips verdicts"
            )
        if self._name is not None:
            if self._reader is None:
                raise ConsumerTaken(f"nothing was read as {self._name}")
            # An older place renews the lease, and moves nothing back.
            place = max(place, self._acknowledged or place)
            count = bisect.bisect_right(self._out, place)
            try:
                consumers.acknowledge(self._engine, self._reader, place, given=self._count + count)
            except ConsumerTaken:
                self._lose()
                raise
            self._count += count
            del self._out[:count]
            self._renew_at = time.monotonic() + _RENEW_AT * self._settings.lease_s
        self._acknowledged = place
        if self._unacknowledged is not None and place >= self._unacknowledged:
            self._unacknowledged = None

    def batches(self, *, follow: bool = True) -> Iterator[Sequence[PublishedVerdict]]:
        """Batch after batch. Each is acknowledged when the next is asked for; a loop that ends early keeps its last.

        follow: wait for more, through outages of Postgres too, until `close` is called in another thread. Without
        it the end of the feed is the end, and a Postgres that is away raises.
        """
        retry_s = _FIRST_RETRY_S
        while not self._closed.is_set():
            try:
                batch = self.next_batch()
                if batch:
                    yield batch
                    self._acknowledge_given(follow)
                elif not follow:
                    self._end_of_feed()
                    return
                else:
                    self._wait()
                retry_s = _FIRST_RETRY_S
            except ConsumerTaken:
                if not follow:
                    raise
                log.warning("consumer_taken", consumer=self._name)
            except LedgerUnavailable as exc:
                if not follow:
                    raise
                log.warning("feed_waits_for_ledger", error=str(exc))
                self._closed.wait(retry_s)
                retry_s = min(2 * retry_s, _LAST_RETRY_S)

    def __iter__(self) -> Iterator[PublishedVerdict]:
        """Every verdict, waiting for more. A batch is acknowledged once the loop asks for the one behind its last."""
        for batch in self.batches():
            yield from batch

    def stop(self) -> None:
        """End the loops over this feed, from any thread, once they ask for more."""
        self._closed.set()

    def close(self) -> None:
        """Let go of the name and the connections. What was not acknowledged comes again."""
        self._closed.set()
        reader, self._reader = self._reader, None
        if reader is not None:
            try:
                consumers.release(self._engine, reader)
            except LedgerUnavailable as exc:  # the lease ends by itself
                log.warning("consumer_not_released", consumer=self._name, error=str(exc))
        self._listener.close()
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _begin(self, after: Cursor | str | None) -> Cursor:
        if after is None:
            place = START
        elif after == NOW:
            place = end(self._engine)
        else:
            place = after if isinstance(after, Cursor) else Cursor.parse(after)
            check_place(self._engine, place)
        if self._name is not None:
            consumers.add_consumer(self._engine, self._name, self._filter, place)
        return place

    def _may_read(self) -> bool:
        """Hold the name, if there is one, and begin at its place where it has just been taken."""
        if self._name is None:
            return True
        if self._reader is None:
            held = consumers.take(self._engine, self._name, holder=_process(), lease_s=self._settings.lease_s)
            if held is None:
                return False
            self._reader, self._place = held
            self._unacknowledged = None
            self._out = []
            self._count = self._reader.given
            self._acknowledged = self._place
            self._renew_at = time.monotonic() + _RENEW_AT * self._settings.lease_s
        return True

    def _renew(self) -> None:
        """Keep the name, and the place past what does not pass the filter, while nothing waits to be acknowledged."""
        if self._name is None or self._reader is None or time.monotonic() < self._renew_at:
            return
        self.acknowledge(self._place if self._unacknowledged is None else self._acknowledged)

    def _acknowledge_given(self, follow: bool) -> None:
        while self._unacknowledged is not None:  # unless the loop's body did it
            try:
                self.acknowledge()
            except LedgerUnavailable as exc:
                # A batch that is dealt with is not given again for an outage that is shorter than the lease.
                if not follow or self._closed.is_set():
                    raise
                log.warning("acknowledgement_waits_for_ledger", error=str(exc))
                self._closed.wait(_FIRST_RETRY_S)

    def _end_of_feed(self) -> None:
        if self._name is None:
            return
        if self._reader is None:
            raise ConsumerTaken(f"another process reads as {self._name}")
        self.acknowledge(self._place)

    def _wait(self) -> None:
        poll_s = self._settings.poll_s
        if self._name is not None:
            poll_s = min(poll_s, _RENEW_AT * self._settings.lease_s)  # the name is to be kept meanwhile
        if self._name is not None and self._reader is None:
            self._closed.wait(poll_s)
        elif self._unsettled:
            self._closed.wait(self._settings.settle_s)
        else:
            self._listener.wait(poll_s)

    def _lose(self) -> None:
        self._reader = self._unacknowledged = None


def _database(url: str | None) -> str:
    if url is None and (setting := ServiceSettings().database_url) is not None:
        url = setting.get_secret_value()
    if url is None:
        raise BadSetting("no database: set DATABASE_URL or pass database_url")
    return url


def _checked(name: str) -> str:
    if not name or len(name) > _NAME_LENGTH or not name.isprintable():
        raise InvalidConsumer(f"a consumer's name is one printable line of at most {_NAME_LENGTH} characters")
    return name


def _process() -> str:
    return f"{os.getpid()}@{socket.gethostname()}"

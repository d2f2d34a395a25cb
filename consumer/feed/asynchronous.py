"""AsyncFeed: the feed for asyncio. It runs the steps of `Feed` in one thread of its own, so the loop is written once.

A step cannot be cancelled in its thread: it reads on when its caller is cancelled. What it read is kept for the next
caller, and is not acknowledged before it was handed out.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self, TypeVar

from consumer.feed.reader import Feed
from moderation.cursor import Cursor
from moderation.published import PublishedVerdict

T = TypeVar("T")


class AsyncFeed:
    """As `Feed`, with the same arguments: `async with AsyncFeed(consumer="takedown") as feed: async for verdict in feed`."""

    def __init__(self, **options: Any) -> None:
        self._options = options
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="feed")
        self._feed: Feed | None = None
        self._reading: asyncio.Future[Sequence[PublishedVerdict] | None] | None = None
        self._handed_out: Cursor | None = None  # the last verdict's

    @property
    def cursor(self) -> Cursor:
        """The place behind all that was read."""
        return self._open.cursor

    async def next_batch(self) -> Sequence[PublishedVerdict]:
        """See `Feed.next_batch`. Safe to cancel: what was read meanwhile is what the next call returns."""
        return await self._read(self._open.next_batch) or ()

    async def acknowledge(self, upto: Cursor | None = None) -> None:
        """See `Feed.acknowledge`. A batch that was read for a caller who was cancelled is not acknowledged."""
        if upto is None and self._reading is not None:
            upto = self._handed_out
            if upto is None:
                return
        await self._run(lambda: self._open.acknowledge(upto))

    async def batches(self, *, follow: bool = True) -> AsyncIterator[Sequence[PublishedVerdict]]:
        """See `Feed.batches`."""
        batches = self._open.batches(follow=follow)
        while (batch := await self._read(lambda: next(batches, None))) is not None:
            yield batch

    async def __aiter__(self) -> AsyncIterator[PublishedVerdict]:
        async for batch in self.batches():
            for verdict in batch:
                yield verdict

    async def close(self) -> None:
        """See `Feed.close`. A step that waits ends within the second that it waits at most."""
        feed, self._feed = self._feed, None
        if feed is not None:
            feed.stop()
            await self._run(feed.close)
        self._thread.shutdown(wait=False)

    async def __aenter__(self) -> Self:
        self._feed = await self._run(lambda: Feed(**self._options))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.shield(self.close())

    @property
    def _open(self) -> Feed:
        if self._feed is None:
            raise RuntimeError("open an AsyncFeed with `async with`")
        return self._feed

    async def _run(self, step: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, step)

    async def _read(
        self, step: Callable[[], Sequence[PublishedVerdict] | None]
    ) -> Sequence[PublishedVerdict] | None:
        """What this step reads, or what one read whose caller was cancelled."""
        if self._reading is not None and (verdicts := await self._result_of(self._reading)):
            return verdicts
        self._reading = asyncio.get_running_loop().run_in_executor(self._thread, step)
        return await self._result_of(self._reading)

    async def _result_of(
        self, reading: "asyncio.Future[Sequence[PublishedVerdict] | None]"
    ) -> Sequence[PublishedVerdict] | None:
        try:
            batch = await asyncio.shield(reading)
        except Exception:  # not CancelledError: the thread reads on
            self._reading = None
            raise
        self._reading = None
        if batch:
            self._handed_out = batch[-1].cursor
        return batch

"""AsyncClient: the same client for asyncio.

It has no submission code of its own: it runs `Client` in a thread pool, with as many threads as there are connections
to Postgres. A submission is two round trips of a millisecond each, during which psycopg releases the interpreter, so
a thread costs some 50 us of it. A second, asynchronous way to the ledger would double every statement, retry and
error.
"""

import asyncio
import contextvars
import threading
from collections.abc import AsyncIterable, AsyncIterator, Callable, Coroutine, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from functools import partial, wraps
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar, Unpack

from moderation.assessment import Submission, Ticket
from moderation.settings import LedgerSettings, QueueSettings
from producer.chunks import CHUNK
from producer.client import Client, Submitted
from producer.validation import SharedFields

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


def _in_thread(
    method: Callable[Concatenate[Client, P], R],
) -> Callable[Concatenate["AsyncClient", P], Coroutine[Any, Any, R]]:
    """A method of Client as a coroutine, with its signature and its errors."""

    @wraps(method)
    async def call(self: "AsyncClient", /, *args: P.args, **kwargs: P.kwargs) -> R:
        return await self.run(partial(method, self.client, *args, **kwargs))

    return call


class AsyncClient:
    """Submits images from coroutines. Use as an async context manager or await `close`.

    A coroutine that is cancelled while it waits leaves its submission to the thread: it may be accepted or not, and a
    repeat with the same key settles it.
    """

    def __init__(
        self,
        database_url: str | None = None,
        redis_url: str | None = None,
        *,
        queue: QueueSettings | None = None,
    ) -> None:
        self.client = Client(database_url, redis_url, queue=queue)
        # More would only wait for a connection.
        self._threads = ThreadPoolExecutor(LedgerSettings().pool_size, thread_name_prefix="vetline-submit")

    submit = _in_thread(Client.submit)
    submit_under = _in_thread(Client.submit_under)
    submit_all = _in_thread(Client.submit_all)

    async def submit_many(
        self,
        images: Iterable[str | Submission] | AsyncIterable[str | Submission],
        policy: str | Sequence[str] = "",
        *,
        on_tickets: Callable[[Sequence[Ticket]], None] = lambda _: None,
        **shared: Unpack[SharedFields],
    ) -> Submitted:
        """As `Client.submit_many`, from an asynchronous iterable as well.

        images: read on the event loop where it is asynchronous, in a thread where it is not.
        on_tickets: called on the event loop.
        """
        bridge = _Bridge(asyncio.get_running_loop())
        source = bridge.drained(aiter(images)) if isinstance(images, AsyncIterable) else images
        try:
            return await self.run(
                partial(
                    self.client.submit_many,
                    bridge.until_left(source),
                    policy,
                    on_tickets=partial(bridge.call, on_tickets),
                    **shared,
                )
            )
        finally:
            bridge.leave()

    async def run(self, work: Callable[[], T]) -> T:
        """What `work` returns, from one of the client's threads, with the caller's context variables."""
        context = contextvars.copy_context()
        return await asyncio.get_running_loop().run_in_executor(self._threads, context.run, work)

    async def close(self) -> None:
        """Wait for what is under way, then close."""
        await asyncio.to_thread(self._threads.shutdown)
        self.client.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


class _Bridge:
    """Lets a thread wait for what happens on the event loop, until the coroutine that began it has left."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._lock = threading.Lock()
        self._is_cancelled = False
        self._pending: Future[Any] | None = None

    def leave(self) -> None:
        with self._lock:
            self._is_cancelled = True
            if self._pending is not None:
                self._pending.cancel()

    def until_left(self, items: Iterable[T]) -> Iterator[T]:
        for item in items:
            if self._is_cancelled:  # cancelled: nobody wants the rest
                raise CancelledError
            yield item

    def drained(self, items: AsyncIterator[T]) -> Iterator[T]:
        """Its items, a chunk at a time: a crossing costs some 50 us."""
        while some := self._wait(_take(items, CHUNK)):
            yield from some

    def call(self, callback: Callable[[T], None], value: T) -> None:
        self._wait(_called(callback, value))

    def _wait(self, coroutine: Coroutine[Any, Any, R]) -> R:
        with self._lock:
            if self._is_cancelled:
                coroutine.close()
                raise CancelledError
            self._pending = pending = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        return pending.result()


async def _take(items: AsyncIterator[T], count: int) -> list[T]:
    values: list[T] = []
    async for item in items:
        values.append(item)
        if len(values) == count:
            break
    return values


async def _called(callback: Callable[[T], None], value: T) -> None:
    callback(value)

"""Pipelined work: while some items are worked on, the next is drawn.

A chunk is made by Python and committed by Postgres, and neither needs the other meanwhile: one after the other they take
half as long again. Two are worked on at once, so that one is with Postgres while the other is written out or read.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

AT_ONCE = 2


def pipelined(work: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """What work makes of each item, in order. It runs in threads of its own; items are drawn in the caller's.

    An error of the source comes out after what came of the items before it. After an error of `work` no further item is
    begun: those that were begun beside it are ended, and what came of them is not told.
    """
    source = iter(items)
    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="vetline-behind") as threads:
        under_way: deque[Future[R]] = deque()
        ended: Exception | None = None
        while ended is None:
            try:
                item = next(source)
            except Exception as exc:  # noqa: BLE001 - StopIteration too; raised below, once what is under way came out
                ended = exc
            if len(under_way) == AT_ONCE:
                yield under_way.popleft().result()
            if ended is None:
                under_way.append(threads.submit(copy_context().run, work, item))
        while under_way:
            yield under_way.popleft().result()
        if not isinstance(ended, StopIteration):
            raise ended

"""Work that keeps one behind its source: while one item is worked on, the next is drawn.

A chunk is made by Python and committed by Postgres, and neither needs the other meanwhile: one after the other they
take half as long again.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def one_behind(work: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """What work makes of each item, in order. It runs in one thread of its own; items are drawn in the caller's.

    An error of the source comes out after what came of the item before it. After an error of `work` nothing more is
    worked on: of the source, one item more was drawn.
    """
    source = iter(items)
    with ThreadPoolExecutor(1, thread_name_prefix="vetline-behind") as thread:
        under_way: Future[R] | None = None
        while True:
            ended: Exception | None = None
            try:
                item = next(source)
            except Exception as exc:  # noqa: BLE001 - StopIteration too; raised below, once what is under way came out
                ended = exc
            if under_way is not None:
                yield under_way.result()
            if isinstance(ended, StopIteration):
                return
            if ended is not None:
                raise ended
            under_way = thread.submit(copy_context().run, work, item)

"""Which step each task is at, for Flower: fetch, decode, judge, record as states of their own.

Celery lets a worker send events of any name about a task, and Flower shows the name as the task's state. A task that
takes 30 ms is over before anybody looks, so steps are not sent as they begin: once a second the hub's thread tells
where the tasks are that are still in hand. That is an event or two for a task of two seconds, and none for a fast one.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

EVERY_S = 1.0

_here = threading.local()  # the task of this thread
_steps: dict[str, str] = {}  # by task id; written by the tasks' threads, read by the hub's


@contextmanager
def task(id_: str) -> Iterator[None]:
    """What this thread does in the block is this task's."""
    _here.task = id_
    try:
        yield
    finally:
        _here.task = None
        _steps.pop(id_, None)


def step(name: str) -> None:
    """This thread's task, if it has one, begins this step."""
    if id_ := getattr(_here, "task", None):
        _steps[id_] = name


class Teller:
    """Sends what is new through Celery's dispatcher. In the hub's thread, as Celery's own events."""

    def __init__(self) -> None:
        self._told: dict[str, str] = {}

    def tell(self, dispatcher: Any) -> None:
        """dispatcher: the consumer's; None or disabled while there is no connection, or nobody wants events."""
        now = dict(_steps)
        if dispatcher is not None and dispatcher.enabled:
            for id_, name in now.items():
                if self._told.get(id_) != name:
                    dispatcher.send(f"task-{name}", uuid=id_)
        self._told = now

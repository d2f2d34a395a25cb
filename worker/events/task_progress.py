"""Which step each task is at, for Flower: fetch, decode, judge, record as states of their own.

Celery lets a worker send events of any name about a task, and Flower shows the name as the task's state. A task that
takes 30 ms is over before anybody looks, so steps are not sent as they begin: once a second the hub's thread tells
where the tasks are that are still in hand. That is an event or two for a task of two seconds, and none for a fast one.

Rows that came in a message with others are no tasks of Celery's. They are told of as if they were, with the times at
which they began and ended, so that Flower shows every image.
"""

import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from moderation.doorbell import TASK, shown_kwargs
from worker.events.event_batching import wants_tasks
from worker.events.outcome import Outcome, judged, not_judged

EVERY_S = 1.0
# Rows that ended while nobody was told, as in a reconnection; the ledger knows them all.
_MOST_UNTOLD = 10_000

_here = threading.local()  # the task of this thread
_steps: dict[str, str] = {}  # by task id; written by the tasks' threads, read by the hub's
_begun: dict[str, "TaskRow"] = {}  # as _steps
_ended: deque["TaskRow"] = deque(maxlen=_MOST_UNTOLD)


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


@dataclass(slots=True)
class TaskRow:
    """A row that is shown as a task."""

    id: str
    uri: str
    policy: str
    begun_at: float = field(default_factory=time.time)
    ended_at: float = 0.0
    outcome: Outcome | None = None  # None until it ends
    row: UUID | None = None

    def end(self, outcome: Outcome, *, row: UUID | None = None) -> None:
        """row: the assessment, where that is not the task's own id."""
        self.outcome, self.ended_at, self.row = outcome, time.time(), row
        _ended.append(self)
        _begun.pop(self.id, None)
        _steps.pop(self.id, None)


def begin(id_: UUID | str, uri: str, policy: str) -> TaskRow:
    """A row that is no task of Celery's is worked on from now on, until its `end`."""
    row = TaskRow(str(id_), uri, policy)
    _begun[row.id] = row
    return row


class TaskEventSender:
    """Sends what is new through Celery's dispatcher. In the hub's thread, as Celery's own events."""

    def __init__(self) -> None:
        self._sent_steps: dict[str, str] = {}
        self._rows: set[str] = set()  # told of, and not ended

    def tell(self, dispatcher: Any) -> None:
        """dispatcher: the consumer's. Where nobody listens nothing is told, and what is under way when somebody comes is."""
        ended = [_ended.popleft() for _ in range(len(_ended))]
        if not wants_tasks(dispatcher):
            self._sent_steps, self._rows = {}, set()
            return
        now, begun = dict(_steps), dict(_begun)
        for row in (*ended, *begun.values()):
            if row.id not in self._rows:
                _tell_begun(dispatcher, row)
        for id_, name in now.items():
            if self._sent_steps.get(id_) != name:
                dispatcher.send(f"task-{name}", uuid=id_)
        for row in ended:
            _tell_ended(dispatcher, row)
        self._sent_steps, self._rows = now, set(begun)


def _tell_begun(dispatcher: Any, row: TaskRow) -> None:
    about = {"uuid": row.id, "timestamp": row.begun_at}
    kwargs = shown_kwargs(row.uri, row.policy)
    dispatcher.send("task-received", name=TASK, args="()", kwargs=kwargs, retries=0, root_id=row.id, **about)
    dispatcher.send("task-started", **about)


def _tell_ended(dispatcher: Any, row: TaskRow) -> None:
    """As Celery tells of a task that ended so: see worker.broker.tasks."""
    assert row.outcome is not None, "it has ended"
    about = {"uuid": row.id, "timestamp": row.ended_at}
    exception = repr(not_judged(row.id, [row.outcome]))
    if row.outcome.is_failed:
        dispatcher.send("task-failed", exception=exception, traceback="", **about)
    elif row.outcome.is_retried:
        dispatcher.send("task-retried", exception=exception, traceback="", **about)
    else:
        result = repr(judged(row.row or row.id, [row.outcome]))
        dispatcher.send("task-succeeded", result=result, runtime=row.ended_at - row.begun_at, **about)

"""What Flower is told, in fewer messages: task events gather before they are published, and are not made for nobody.

Celery publishes at every turn of its loop, which at one image a turn was half of a worker's CPU. Twice a second is often
enough to look at. And with every publication Redis says how many heard it: while a worker's heartbeats, one in two
seconds, are heard by nobody, events of tasks would be too, and are left out. Celery calls that `-E` switched off; a
Flower that comes sees tasks from the next heartbeat on.
"""

from functools import partial
from typing import Any

from celery import bootsteps
from celery.worker.state import SOFTWARE_INFO

_EVERY_S = 0.5
_AT_ONCE = 200  # events of one message, 80 KB; more before their time go out by themselves
_WORKERS_ALONE = frozenset({"worker"})  # of Celery's two groups of events


class EventBatchingStep(bootsteps.StartStopStep):
    """Runs in the hub's thread, at the start and after each reconnection."""

    requires = ("celery.worker.consumer.events:Events",)
    timer_entry: Any = None

    def start(self, consumer: Any) -> None:
        self._forget(consumer)
        dispatcher = consumer.event_dispatcher
        dispatcher.on_send_buffered = None
        dispatcher.buffer_limit = _AT_ONCE
        is_wanted = not dispatcher.groups  # else whoever started the worker wants no events of tasks
        if is_wanted and dispatcher.producer is not None:
            dispatcher.producer.channel.on_heard = partial(_follow, dispatcher)
            dispatcher.send("worker-online", **SOFTWARE_INFO)  # once more: who hears it decides what follows
        self.timer_entry = consumer.timer.call_repeatedly(_EVERY_S, _flush, (consumer,))

    def stop(self, consumer: Any) -> None:
        self._forget(consumer)

    def _forget(self, consumer: Any) -> None:
        if self.timer_entry is not None:
            consumer.timer.cancel(self.timer_entry)
            self.timer_entry = None


def wants_tasks(dispatcher: Any) -> bool:
    """Whether events of tasks go out now. dispatcher: the consumer's; None while there is no connection."""
    return bool(
        dispatcher is not None
        and dispatcher.enabled
        and (not dispatcher.groups or "task" in dispatcher.groups)
    )


def _follow(dispatcher: Any, heard_by: int) -> None:
    dispatcher.groups = set() if heard_by else set(_WORKERS_ALONE)


def _flush(consumer: Any) -> None:
    if consumer.event_dispatcher is not None:
        consumer.event_dispatcher.flush()

"""What Flower is told, in fewer messages: a bootstep that lets Celery's task events gather before they are published.

Celery publishes at every turn of its loop, which at one image a turn was half of a worker's CPU: each publication
makes a Redis client anew. Twice a second is often enough to look at.
"""

from typing import Any

from celery import bootsteps

_EVERY_S = 0.5
_AT_ONCE = 200  # events of one message, 80 KB; more before their time go out by themselves


class TellingStep(bootsteps.StartStopStep):
    """Runs in the hub's thread, at the start and after each reconnection."""

    requires = ("celery.worker.consumer.events:Events",)
    timer_entry: Any = None

    def start(self, consumer: Any) -> None:
        self._forget(consumer)
        consumer.event_dispatcher.on_send_buffered = None
        consumer.event_dispatcher.buffer_limit = _AT_ONCE
        self.timer_entry = consumer.timer.call_repeatedly(_EVERY_S, _flush, (consumer,))

    def stop(self, consumer: Any) -> None:
        self._forget(consumer)

    def _forget(self, consumer: Any) -> None:
        if self.timer_entry is not None:
            consumer.timer.cancel(self.timer_entry)
            self.timer_entry = None


def _flush(consumer: Any) -> None:
    if consumer.event_dispatcher is not None:
        consumer.event_dispatcher.flush()

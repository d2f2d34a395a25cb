"""Where the worker's parts join Celery's start and stop: two bootsteps."""

import warnings
from collections.abc import Callable
from typing import Any

import redis
from celery import Celery, bootsteps
from celery.exceptions import CPendingDeprecationWarning
from celery.signals import worker_shutting_down
from celery.worker import state as celery_state

from worker import showing
from worker.consumer import patient
from worker.progress import Progress
from worker.pulse import HUB, HUB_S
from worker.station import Station

_LOOK_EVERY_S = 0.25
_QUEUE = "queue"  # on the board
_STALLED = 75  # EX_TEMPFAIL; 0 would tell a supervisor that all is done


class Shift:
    """This process's station while the worker runs; made when Celery starts, for threads do not survive a fork."""

    def __init__(self, make_station: Callable[[], Station], queues: tuple[str, ...]) -> None:
        self._make_station = make_station
        self.queues = queues
        self.station: Station | None = None
        self.progress: Progress | None = None

    def begin(self) -> None:
        # Celery advises at every reconnection to cancel what runs; what runs here has its claim in the ledger.
        advice = r"\s*In Celery 5\.1 we introduced an optional breaking change"
        warnings.filterwarnings("ignore", advice, CPendingDeprecationWarning)
        self.station = self._make_station()
        self.station.board.wait_for(_QUEUE, "connects to Redis")
        self.progress = Progress(self.station, self.leave)
        worker_shutting_down.connect(self.closing, weak=False)
        self.station.start(leave=self.leave)
        self.progress.start()

    def closing(self, **_: Any) -> None:
        if self.progress is not None and self.station is not None:
            self.progress.stop()
            self.station.close()

    def leave(self, exit_code: int = _STALLED) -> None:
        """End the worker as SIGTERM does, from any thread, but so that a supervisor knows what to do."""
        if self.station is not None:
            self.station.close(exit_code=exit_code)
        self.closing()
        # The hub's thread looks at it in each of its rounds; its stubs know the initial None alone.
        celery_state.should_stop = exit_code  # type: ignore[assignment]

    def refused(self, reason: str) -> None:
        """Redis answers and refuses: nothing stalls, and nothing is taken."""
        if self.station is not None and self.progress is not None:
            self.station.board.wait_for(_QUEUE, reason)
            self.progress.reconnected()

    def end(self) -> None:
        if self.station is not None:
            self.station.stop()
        self.station = self.progress = None


def install(app: Celery, shift: Shift) -> None:
    """Add to an app the steps that begin, follow and end a shift."""
    app.conf.worker_consumer = patient(shift.refused)

    class StationStep(bootsteps.StartStopStep):
        """Starts the station after the pool. Celery stops it before the pool, so it drains the pool itself."""

        requires = ("celery.worker.components:Pool",)

        def start(self, worker: Any) -> None:
            shift.begin()

        def stop(self, worker: Any) -> None:
            shift.closing()
            worker.pool.stop()
            shift.end()

        def terminate(self, worker: Any) -> None:
            self.stop(worker)

    class GateStep(bootsteps.StartStopStep):
        """Consumes while the gate is open. All of it runs in the hub's thread, as kombu wants."""

        requires = ("celery.worker.consumer.tasks:Tasks",)
        timer_entry: Any = None
        telling: Any = None

        def start(self, consumer: Any) -> None:
            """At the start and after each reconnection."""
            if self.timer_entry is not None:
                consumer.timer.cancel(self.timer_entry)
                consumer.timer.cancel(self.telling)
            if shift.progress is not None:
                shift.progress.reconnected()
            if shift.station is None or not shift.station.gate.is_open:
                # Before the loop asks for the first message: one that came in between would wait to ring again.
                for queue in shift.queues:
                    consumer.cancel_task_queue(queue)
            if shift.station is not None:
                shift.station.counted_by(consumer.task_consumer.channel.qos)
                _follow_turns(consumer, shift.station.turns.most_in_hand)
            self.timer_entry = consumer.timer.call_repeatedly(_LOOK_EVERY_S, _look, (consumer, shift))
            self.telling = consumer.timer.call_repeatedly(
                showing.EVERY_S, _tell, (consumer, showing.Teller())
            )
            if shift.station is not None:
                shift.station.board.clear(_QUEUE)

        def stop(self, consumer: Any) -> None:
            """Before each reconnection, and at the end."""
            if shift.station is not None:
                shift.station.pulse.forget(HUB)
                shift.station.board.wait_for(_QUEUE, "connects to Redis")

    app.steps["worker"].add(StationStep)
    app.steps["consumer"].add(GateStep)


def _look(consumer: Any, shift: Shift) -> None:
    station, progress = shift.station, shift.progress
    if station is None or progress is None or consumer.task_consumer is None:
        return
    station.pulse.beat(HUB, HUB_S)
    for queue in shift.queues:
        _follow_gate(consumer, queue, wanted=station.gate.is_open)
    _follow_turns(consumer, station.turns.most_in_hand)
    if progress.reconnect_wanted:
        progress.reconnect_wanted = False
        # One of the errors that the hub lets through to the consumer, which then connects anew.
        raise redis.ConnectionError("messages wait and none arrive: connecting anew")


def _tell(consumer: Any, teller: showing.Teller) -> None:
    """To whoever dispatches events now: another one after each reconnection."""
    teller.tell(consumer.event_dispatcher)


def _follow_gate(consumer: Any, queue: str, *, wanted: bool) -> None:
    """Take messages while the gate is open, and none while it is shut.

    Cancelling the queue is the only pause that loses nothing: a reply that is under way is put back.
    """
    consuming = consumer.task_consumer.consuming_from(queue)
    if wanted and not consuming:
        consumer.add_task_queue(queue)
    elif consuming and not wanted:
        consumer.cancel_task_queue(queue)


def _follow_turns(consumer: Any, most_in_hand: int) -> None:
    """Have as many rows out as there is use for. The pool's threads are made as they are needed, up to the most.

    Without this Celery takes one for each thread of its pool. Lowered below what is out, it takes none until enough
    have ended; a reply that is under way then waits in its socket (kombu sets it aside), or rings again.
    """
    if consumer.qos.value != most_in_hand:
        consumer.qos.value = most_in_hand
        consumer.qos.update()

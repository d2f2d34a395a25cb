"""Where the worker's parts join Celery's start and stop: two bootsteps."""

import warnings
from collections.abc import Callable
from typing import Any

import redis
from celery import Celery, bootsteps
from celery.exceptions import CPendingDeprecationWarning
from celery.signals import worker_shutting_down
from celery.worker import state as celery_state

from moderation.exit_codes import SERVICE_DOWN
from worker.broker.patient_consumer import patient
from worker.broker.stall_watchdog import StallWatchdog
from worker.events import task_progress
from worker.health.liveness import HUB, HUB_S
from worker.service import WorkerService

_LOOK_EVERY_S = 0.25
_QUEUE = "queue"  # a condition


class ServiceHolder:
    """This process's service while the worker runs; made when Celery starts, for threads do not survive a fork."""

    def __init__(self, make_service: Callable[[], WorkerService], queues: tuple[str, ...]) -> None:
        self._make_service = make_service
        self.queues = queues
        self.service: WorkerService | None = None
        self.progress: StallWatchdog | None = None

    def begin(self) -> None:
        # Celery advises at every reconnection to cancel what runs; what runs here has its claim in the ledger.
        advice = r"\s*In Celery 5\.1 we introduced an optional breaking change"
        warnings.filterwarnings("ignore", advice, CPendingDeprecationWarning)
        self.service = self._make_service()
        self.service.conditions.wait_for(_QUEUE, "connects to Redis")
        self.progress = StallWatchdog(self.service, self.leave)
        worker_shutting_down.connect(self.closing, weak=False)
        self.service.start(leave=self.leave)
        self.progress.start()

    def closing(self, **_: Any) -> None:
        if self.progress is not None and self.service is not None:
            self.progress.stop()
            self.service.close()

    def leave(self, exit_code: int = SERVICE_DOWN) -> None:
        """End the worker as SIGTERM does, from any thread, but so that its supervisor starts it again."""
        if self.service is not None:
            self.service.close(exit_code=exit_code)
        self.closing()
        # The hub's thread looks at it in each of its rounds; its stubs know the initial None alone.
        celery_state.should_stop = exit_code  # type: ignore[assignment]

    def refused(self, reason: str) -> None:
        """Redis answers and refuses: nothing stalls, and nothing is taken."""
        if self.service is not None and self.progress is not None:
            self.service.conditions.wait_for(_QUEUE, reason)
            self.progress.reconnected()

    def end(self) -> None:
        if self.service is not None:
            self.service.stop()
        self.service = self.progress = None


def install(app: Celery, holder: ServiceHolder) -> None:
    """Add to an app the steps that begin, follow and end the service."""
    app.conf.worker_consumer = patient(holder.refused)

    class ServiceStep(bootsteps.StartStopStep):
        """Starts the service after the pool. Celery stops it before the pool, so it drains the pool itself."""

        requires = ("celery.worker.components:Pool",)

        def __init__(self, worker: Any, **options: Any) -> None:
            super().__init__(worker, **options)
            # What plain clients send is read by worker.plain, and never by Celery's consumer.
            worker.app.amqp.queues.select(holder.queues)

        def start(self, worker: Any) -> None:
            holder.begin()

        def stop(self, worker: Any) -> None:
            holder.closing()
            worker.pool.stop()
            holder.end()

        def terminate(self, worker: Any) -> None:
            self.stop(worker)

    class IntakeGateStep(bootsteps.StartStopStep):
        """Consumes while the gate is open. All of it runs in the hub's thread, as kombu wants."""

        requires = ("celery.worker.consumer.tasks:Tasks",)
        timer_entry: Any = None
        telling: Any = None

        def start(self, consumer: Any) -> None:
            """At the start and after each reconnection."""
            if self.timer_entry is not None:
                consumer.timer.cancel(self.timer_entry)
                consumer.timer.cancel(self.telling)
            if holder.progress is not None:
                holder.progress.reconnected()
            if holder.service is None or not holder.service.intake_gate.is_open:
                # Before the loop asks for the first message: one that came in between would wait to ring again.
                for queue in holder.queues:
                    consumer.cancel_task_queue(queue)
            if holder.service is not None:
                holder.service.counted_by(consumer.task_consumer.channel.qos)
                _follow_limit(consumer, holder.service.limiter.busy_threads_limit)
            self.timer_entry = consumer.timer.call_repeatedly(_LOOK_EVERY_S, _look, (consumer, holder))
            self.telling = consumer.timer.call_repeatedly(
                task_progress.EVERY_S, _tell, (consumer, task_progress.TaskEventSender())
            )
            if holder.service is not None:
                holder.service.conditions.clear(_QUEUE)

        def stop(self, consumer: Any) -> None:
            """Before each reconnection, and at the end."""
            if holder.service is not None:
                holder.service.liveness.forget(HUB)
                holder.service.conditions.wait_for(_QUEUE, "connects to Redis")

    app.steps["worker"].add(ServiceStep)
    app.steps["consumer"].add(IntakeGateStep)


def _look(consumer: Any, holder: ServiceHolder) -> None:
    service, progress = holder.service, holder.progress
    if service is None or progress is None or consumer.task_consumer is None:
        return
    service.liveness.beat(HUB, HUB_S)
    for queue in holder.queues:
        _follow_gate(consumer, queue, wanted=service.intake_gate.is_open)
    _follow_limit(consumer, service.limiter.busy_threads_limit)
    if progress.reconnect_wanted:
        progress.reconnect_wanted = False
        # One of the errors that the hub lets through to the consumer, which then connects anew.
        raise redis.ConnectionError("messages wait and none arrive: connecting anew")


def _tell(consumer: Any, sender: task_progress.TaskEventSender) -> None:
    """To whoever dispatches events now: another one after each reconnection."""
    sender.tell(consumer.event_dispatcher)


def _follow_gate(consumer: Any, queue: str, *, wanted: bool) -> None:
    """Take messages while the gate is open, and none while it is shut.

    Cancelling the queue is the only pause that loses nothing: a reply that is under way is put back.
    """
    consuming = consumer.task_consumer.consuming_from(queue)
    if wanted and not consuming:
        consumer.add_task_queue(queue)
    elif consuming and not wanted:
        consumer.cancel_task_queue(queue)


def _follow_limit(consumer: Any, threads: int) -> None:
    """Have as many rows out as there is use for. The pool's threads are made as they are needed, up to the most.

    Without this Celery takes one for each thread of its pool. Lowered below what is out, it takes none until enough
    have ended; a reply that is under way then waits in its socket (kombu sets it aside), or rings again.
    """
    if consumer.qos.value != threads:
        consumer.qos.value = threads
        consumer.qos.update()

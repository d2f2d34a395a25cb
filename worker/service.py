"""The worker's service: all its parts, started and stopped in order. One for a process."""

import os
import socket
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from uuid import UUID

import structlog

from moderation import metrics, tracing
from moderation.doorbell import Doorbell
from moderation.errors import Misuse, VetlineError
from moderation.exit_codes import MISUSE, SERVICE_DOWN
from moderation.ledger.engine import open_ledger, ping
from moderation.plain_queue import PlainQueue
from moderation.settings import AuditSettings, LeaseSettings, QueueSettings
from moderation.transport import QoS
from moderation.worker_status import WorkerStatus
from worker.events.outcome import Outcome
from worker.gpu.name import gpu_name
from worker.health.auditor import Auditor
from worker.health.intake_gate import IntakeGate
from worker.health.liveness import Liveness
from worker.health.probe_address import ProbeSettings
from worker.health.probe_server import ProbeServer
from worker.health.readiness import Readiness
from worker.heartbeat import Heartbeat
from worker.plain.intake import PlainIntake
from worker.processing.assembly import make_processor
from worker.processing.assessor import Assessor
from worker.processing.components import make_components
from worker.processing.fan_out import FanOut
from worker.processing.isolated_run import IsolatedRun
from worker.processing.prefetch import Prefetch
from worker.processing.processor import Processor
from worker.registration import Registration
from worker.settings import WorkerSettings
from worker.sweeper import Sweeper
from worker.webhooks.dispatcher import WebhookDispatcher
from worker.webhooks.settings import WebhookSettings

log = structlog.get_logger()

DRAINING = "draining"  # a condition, until the end
_GIVE_BACK_S = 4.0  # a Postgres that does not answer must not keep us: the leases run out by themselves


class WorkerService:
    """Everything that a worker process runs besides Celery."""

    def __init__(
        self,
        database_url: str,
        redis_url: str,
        settings: WorkerSettings,
        ring_webhook: Callable[[UUID], None] = lambda _: None,
    ) -> None:
        """ring_webhook: sends the message that names an endpoint which is due; by default other workers do."""
        self.settings = settings
        self.conditions = Readiness()
        self.liveness = Liveness()
        self._started_at = datetime.now(UTC)
        self._probes: ProbeServer | None = None
        self._closing = threading.Event()
        self._lease = LeaseSettings()
        self._engine = open_ledger(database_url)
        self._doorbell = Doorbell(redis_url)
        self._components = make_components(settings)
        self.limiter = self._components.limiter
        self._isolated_run = IsolatedRun(settings, self._components.runtime)
        self.intake_gate = IntakeGate(
            lambda: ping(self._engine),
            self._components.check,
            conditions=self.conditions,
            tick=partial(self.liveness.beat, "gate"),
            is_idle=lambda: not self.limiter.busy_threads,
        )
        queue = QueueSettings()
        self._fan_out = FanOut(self.limiter, threads=settings.threads)
        self._prefetch = Prefetch()
        self.webhook_dispatcher = WebhookDispatcher(
            self._engine, ring_webhook, WebhookSettings(), worker=settings.node
        )
        self._plain_queue = PlainQueue(redis_url, queue)
        self._plain_intake = PlainIntake(
            self._engine,
            self._plain_queue,
            self._doorbell,
            worker=settings.node,
            settings=queue,
            tick=partial(self.liveness.beat, "plain"),
        )
        self.processor = self._make_processor(queue)
        self._heartbeat = Heartbeat(
            self._engine,
            self.processor.held_claims,
            self.processor.claimer,
            self._lease,
            tick=partial(self.liveness.beat, "heartbeat"),
        )
        self._sweeper = self._make_sweeper(queue)
        self._auditor = Auditor(self._engine, AuditSettings())
        self._registration = Registration(self._engine, self._lease, status=self.status)

    def _make_processor(self, queue: QueueSettings) -> Processor:
        return make_processor(
            self._engine,
            Assessor(self._engine, self._components, self._isolated_run, self._lease),
            worker=self.settings.node,
            lease=self._lease,
            intake_gate=self.intake_gate,
            doorbell=self._doorbell,
            webhook_dispatcher=self.webhook_dispatcher,
            prefetch=self._prefetch,
            bundle=queue.bundle,
            fan_out=self._fan_out,
        )

    def _make_sweeper(self, queue: QueueSettings) -> Sweeper:
        return Sweeper(
            self._engine,
            self._doorbell,
            worker=self.settings.node,
            lease=self._lease,
            queue=queue,
            bundle=self.processor.at_once,
            tick=partial(self.liveness.beat, "sweeper"),
        )

    def start(self, *, leave: Callable[[int], None]) -> None:
        """leave: ends this process with an exit code, in bounded time; for a runtime that cannot be had."""
        self._probes = ProbeServer(self.status, pid=os.getpid(), settings=ProbeSettings())
        if (runtime := self._components.runtime) is not None:
            runtime.start(
                conditions=self.conditions,
                on_down=self.intake_gate.shut,
                on_hopeless=lambda error: leave(_exit_code(error)),
            )
        for part in (
            self.intake_gate,
            self._heartbeat,
            self._sweeper,
            self._plain_intake,
            self.webhook_dispatcher,
            self._registration,
            self._auditor,
        ):
            part.start()
        tracing.start("worker")
        self._show()
        log.info("worker_started", worker=self.settings.node, judge=self.settings.judge)

    def _show(self) -> None:
        """The metrics that are read from us rather than counted."""
        metrics.IN_HAND.set_function(lambda: len(self.processor.held_claims))
        metrics.BUSY_THREADS.set_function(lambda: self.limiter.busy_threads)
        metrics.BUSY_THREADS_LIMIT.set_function(lambda: self.limiter.busy_threads_limit)
        metrics.IN_FLIGHT.set_function(lambda: self.limiter.in_flight)
        metrics.IN_FLIGHT_LIMIT.set_function(lambda: self.limiter.limit)
        metrics.GATE_OPEN.set_function(lambda: self.intake_gate.is_open)
        metrics.READY.set_function(lambda: self.conditions.is_ready)
        who = (self.settings.node, self.settings.judge, gpu_name() or "none", version("vetline"))
        metrics.WORKER_INFO.labels(*who).set(1)

    def work(self, *ids: UUID) -> list[Outcome]:
        """See Processor.work."""
        with self.limiter.working():
            return self.processor.work(*ids)

    def close(self, *, exit_code: int = 0) -> None:
        """Take nothing more, and end this process when the drain is over, whatever hangs: it is given back."""
        if self._closing.is_set():
            return
        self._closing.set()
        self.conditions.wait_for(DRAINING, "told to stop: finishes what is in hand and takes nothing more")
        self.processor.close()
        self.webhook_dispatcher.close()
        self.intake_gate.stop()
        _later(self.settings.drain_s, self._leave, exit_code)

    def stop(self) -> None:
        """After the last item: stop the parts and let go of everything."""
        self._fan_out.close()
        for part in (
            self._plain_intake,
            self.processor,
            self.webhook_dispatcher,
            self._auditor,
            self._sweeper,
            self._heartbeat,
            self._isolated_run,
        ):
            part.stop()
        self._components.close()
        self._registration.stop()
        self._plain_queue.close()
        self._doorbell.close()
        self._engine.dispose()
        if self._probes is not None:
            self._probes.stop()
        tracing.flush()
        log.info("worker_stopped", worker=self.settings.node)

    def counted_by(self, qos: QoS) -> None:
        """Have a channel count what is in hand here. There is another one after each reconnection."""
        qos.weigh = self.processor.threads_for
        qos.apart = lambda: self._fan_out.parts
        self._prefetch.follow(qos)

    def waiting(self) -> int:
        """Messages in the queue. Raises BrokerUnavailable."""
        return self._doorbell.depth()

    def status(self) -> WorkerStatus:
        """How this worker is, from memory alone."""
        hangs, waiting = self.liveness.silent(), self.conditions.waiting()
        runtime = self._components.judge.runtime()
        return WorkerStatus(
            name=self.settings.node,
            host=socket.gethostname(),
            pid=os.getpid(),
            gpu=gpu_name() or None,
            judge=self.settings.judge,
            version=version("vetline"),
            runtime=runtime.name,
            runtime_version=runtime.version,
            runtime_state=runtime.state,
            model=runtime.model,
            started_at=self._started_at,
            live=not hangs,
            ready=not hangs and not waiting,
            hangs=hangs,
            waiting=waiting,
            in_hand=self.limiter.busy_threads,
            in_hand_most=self.limiter.busy_threads_limit,
            in_flight=self.limiter.in_flight,
            in_flight_most=self.limiter.limit,
            in_flight_phase=self.limiter.phase,
        )

    def _leave(self, exit_code: int) -> None:
        """The drain took too long: give back what hangs, uncharged, and go. Threads cannot be killed."""
        _later(_GIVE_BACK_S, os._exit, exit_code)
        count = self.processor.give_back_all()
        log.warning("drain_timed_out", given_back=count, drain_s=self.settings.drain_s)
        self._registration.stop()
        os._exit(exit_code)


def _exit_code(error: VetlineError) -> int:
    """As vetline's commands exit: 2 where starting again would change nothing, 75 where a service is down."""
    return MISUSE if isinstance(error, Misuse) else SERVICE_DOWN


def _later(seconds: float, act: Callable[[int], object], exit_code: int) -> None:
    timer = threading.Timer(seconds, act, (exit_code,))
    timer.daemon = True
    timer.start()

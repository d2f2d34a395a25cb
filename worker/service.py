"""The worker's service: all its parts, started and stopped in order. One for a process."""

import os
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from uuid import UUID

import structlog

from intake.picture import View
from moderation import metrics, tracing
from moderation.assessment import Claim
from moderation.doorbell import Doorbell
from moderation.errors import Misuse, VetlineError
from moderation.ledger.engine import open_ledger, ping
from moderation.ledger.reuse import KnownVerdict, find_known
from moderation.plain_queue import PlainQueue
from moderation.policy import PolicyRevision
from moderation.settings import AuditSettings, LeaseSettings, QueueSettings
from moderation.transport import QoS
from moderation.verdict import Verdict
from worker.gpu.name import gpu_name
from worker.health.auditor import Auditor
from worker.health.intake_gate import IntakeGate
from worker.health.liveness import Liveness
from worker.health.probe_server import ProbeServer
from worker.health.readiness import Readiness
from worker.health.status_report import ProbeSettings, StatusReport, Wait
from worker.heartbeat import Heartbeat
from worker.plain.intake import PlainIntake
from worker.processing.assess import LazyImage, assess
from worker.processing.components import make_components
from worker.processing.fan_out import FanOut
from worker.processing.isolated_run import IsolatedRun
from worker.processing.processor import Processor
from worker.processing.step_timer import StepTimer
from worker.registration import Registration
from worker.settings import WorkerSettings
from worker.sweeper import Sweeper
from worker.webhooks.dispatcher import WebhookDispatcher
from worker.webhooks.settings import WebhookSettings

log = structlog.get_logger()

DRAINING = "draining"  # a condition, until the end
_MISUSE, _SERVICE_DOWN = 2, 75
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
            self._components.judge.check,
            conditions=self.conditions,
            tick=partial(self.liveness.beat, "gate"),
            is_idle=lambda: not self.limiter.busy,
        )
        queue = QueueSettings()
        self._fan_out = FanOut(self.limiter, threads=settings.threads)
        self.processor = Processor(
            self._engine,
            worker=settings.node,
            lease=self._lease,
            intake_gate=self.intake_gate,
            assess=self._assess,
            put_back=self._doorbell.put_back,
            bundle=queue.bundle,
            fan_out=self._fan_out,
        )
        self.webhook_dispatcher = WebhookDispatcher(
            self._engine, ring_webhook, WebhookSettings(), worker=settings.node
        )
        self.processor.on_recorded = self.webhook_dispatcher.recorded
        self._heartbeat = Heartbeat(
            self._engine,
            self.processor.held_claims,
            self._lease,
            settle=self.processor.settle_doubts,
            tick=partial(self.liveness.beat, "heartbeat"),
        )
        self._sweeper = Sweeper(
            self._engine,
            self._doorbell,
            worker=settings.node,
            lease=self._lease,
            queue=queue,
            bundle=self.processor.at_once,
            tick=partial(self.liveness.beat, "sweeper"),
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
        self._auditor = Auditor(self._engine, AuditSettings())
        self._registration = Registration(
            self._engine, self._lease, report=self.report, runtime=self._components.judge.runtime
        )

    def start(self, *, leave: Callable[[int], None]) -> None:
        """leave: ends this process with an exit code, in bounded time; for a runtime that cannot be had."""
        self._probes = ProbeServer(self.report, pid=os.getpid(), settings=ProbeSettings())
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
        metrics.IN_HAND_LIMIT.set_function(lambda: self.limiter.most_in_hand)
        metrics.IN_FLIGHT.set_function(lambda: self.limiter.in_flight)
        metrics.IN_FLIGHT_LIMIT.set_function(lambda: self.limiter.limit)
        metrics.GATE_OPEN.set_function(lambda: self.intake_gate.is_open)
        metrics.READY.set_function(lambda: self.conditions.is_ready)
        who = (self.settings.node, self.settings.judge, gpu_name() or "none", version("vetline"))
        metrics.WORKER_INFO.labels(*who).set(1)

    def work(self, *ids: UUID) -> str:
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
        self.processor.on_taken = lambda id_: qos.taken(str(id_))  # a message's tag is its first row's id

    def waiting(self) -> int:
        """Messages in the queue. Raises BrokerUnavailable."""
        return self._doorbell.depth()

    def report(self) -> StatusReport:
        """How this worker is, from memory alone."""
        hangs, waiting = self.liveness.silent(), self.conditions.waiting()
        return StatusReport(
            name=self.settings.node,
            pid=os.getpid(),
            judge=self.settings.judge,
            version=version("vetline"),
            started_at=self._started_at,
            live=not hangs,
            ready=not hangs and not waiting,
            hangs=hangs,
            waiting=tuple(Wait(name=item.name, reason=item.reason, since=item.since) for item in waiting),
            in_hand=self.limiter.busy,
            in_hand_most=self.limiter.most_in_hand,
            in_flight=self.limiter.in_flight,
            in_flight_most=self.limiter.limit,
            in_flight_phase=self.limiter.phase,
        )

    def _assess(self, claim: Claim, subject: LazyImage, policy: PolicyRevision, timer: StepTimer) -> Verdict:
        """The path itself; a suspect of having killed workers walks it alone, under observation."""
        if claim.crashes >= self._lease.suspect_crashes:
            return self._isolated_run.assess(claim, policy, timer)
        return assess(subject, policy, self._components, timer, recall=partial(self._recall, claim))

    def _recall(self, claim: Claim, view: View) -> KnownVerdict | None:
        """The verdict about the same pixels under the same policy revision and on the same basis, if it may serve."""
        basis = self._components.judge.basis() if claim.reuse else None
        if basis is None:
            return None
        return find_known(self._engine, view.pixels_sha256, claim.policy_revision_id, basis)

    def _leave(self, exit_code: int) -> None:
        """The drain took too long: give back what hangs, uncharged, and go. Threads cannot be killed."""
        _later(_GIVE_BACK_S, os._exit, exit_code)
        given = self.processor.give_back_all()
        log.warning("drain_timed_out", given_back=given, drain_s=self.settings.drain_s)
        self._registration.stop()
        os._exit(exit_code)


def _exit_code(error: VetlineError) -> int:
    """As vetline's commands exit: 2 where starting again would change nothing, 75 where a service is down."""
    return _MISUSE if isinstance(error, Misuse) else _SERVICE_DOWN


def _later(seconds: float, act: Callable[[int], object], exit_code: int) -> None:
    timer = threading.Timer(seconds, act, (exit_code,))
    timer.daemon = True
    timer.start()

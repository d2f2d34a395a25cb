"""A worker put together: its parts, started and stopped in order. One for a process."""

import os
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from uuid import UUID

import structlog

from moderation import metrics, tracing
from moderation.assessment import Claim
from moderation.doorbell import Doorbell
from moderation.errors import Misuse, VetlineError
from moderation.ledger.engine import open_ledger, ping
from moderation.ledger.reuse import Known, find_known
from moderation.policy import PolicyRevision
from moderation.settings import AuditSettings, LeaseSettings, QueueSettings
from moderation.transport import QoS
from moderation.verdict import Verdict
from worker.assess import Subject, assess
from worker.auditor import Auditor
from worker.clock import Clock
from worker.desk import Desk
from worker.gate import Gate
from worker.gpu import gpu_name
from worker.heartbeat import Heartbeat
from worker.images.picture import View
from worker.presence import Presence
from worker.probes import Probes
from worker.pulse import Pulse
from worker.readiness import Readiness
from worker.report import ProbeSettings, Report, Wait
from worker.settings import WorkerSettings
from worker.sharing import Sharing
from worker.sweeper import Sweeper
from worker.tools import make_tools
from worker.trial import Trial
from worker.webhooks.herald import Herald
from worker.webhooks.settings import WebhookSettings

log = structlog.get_logger()

DRAINING = "draining"  # on the board, until the end
_MISUSE, _SERVICE_DOWN = 2, 75
_GIVE_BACK_S = 4.0  # a Postgres that does not answer must not keep us: the leases run out by themselves


class Station:
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
        self.board = Readiness()
        self.pulse = Pulse()
        self._started_at = datetime.now(UTC)
        self._probes: Probes | None = None
        self._closing = threading.Event()
        self._lease = LeaseSettings()
        self._engine = open_ledger(database_url)
        self._doorbell = Doorbell(redis_url)
        self._tools = make_tools(settings)
        self.turns = self._tools.turns
        self._trial = Trial(settings, self._tools.runtime)
        self.gate = Gate(
            lambda: ping(self._engine),
            self._tools.judge.check,
            board=self.board,
            tick=partial(self.pulse.beat, "gate"),
            is_idle=lambda: not self.turns.busy,
        )
        queue = QueueSettings()
        self._sharing = Sharing(self.turns, threads=settings.threads)
        self.desk = Desk(
            self._engine,
            worker=settings.node,
            lease=self._lease,
            gate=self.gate,
            assess=self._assess,
            put_back=self._doorbell.put_back,
            bundle=queue.bundle,
            sharing=self._sharing,
        )
        self.herald = Herald(self._engine, ring_webhook, WebhookSettings(), worker=settings.node)
        self.desk.on_recorded = self.herald.recorded
        self._heartbeat = Heartbeat(
            self._engine,
            self.desk.hand,
            self._lease,
            settle=self.desk.settle_doubts,
            tick=partial(self.pulse.beat, "heartbeat"),
        )
        self._sweeper = Sweeper(
            self._engine,
            self._doorbell,
            worker=settings.node,
            lease=self._lease,
            queue=queue,
            bundle=self.desk.at_once,
            tick=partial(self.pulse.beat, "sweeper"),
        )
        self._auditor = Auditor(self._engine, AuditSettings())
        self._presence = Presence(
            self._engine, self._lease, report=self.report, runtime=self._tools.judge.runtime
        )

    def start(self, *, leave: Callable[[int], None]) -> None:
        """leave: ends this process with an exit code, in bounded time; for a runtime that cannot be had."""
        self._probes = Probes(self.report, pid=os.getpid(), settings=ProbeSettings())
        if (runtime := self._tools.runtime) is not None:
            runtime.start(
                board=self.board, on_down=self.gate.shut, on_hopeless=lambda error: leave(_exit_code(error))
            )
        for part in (
            self.gate,
            self._heartbeat,
            self._sweeper,
            self.herald,
            self._presence,
            self._auditor,
        ):
            part.start()
        tracing.start("worker")
        self._show()
        log.info("worker_started", worker=self.settings.node, judge=self.settings.judge)

    def _show(self) -> None:
        """The metrics that are read from us rather than counted."""
        metrics.IN_HAND.set_function(lambda: len(self.desk.hand))
        metrics.IN_HAND_LIMIT.set_function(lambda: self.turns.most_in_hand)
        metrics.IN_FLIGHT.set_function(lambda: self.turns.in_flight)
        metrics.IN_FLIGHT_LIMIT.set_function(lambda: self.turns.limit)
        metrics.GATE_OPEN.set_function(lambda: self.gate.is_open)
        metrics.READY.set_function(lambda: self.board.is_ready)
        who = (self.settings.node, self.settings.judge, gpu_name() or "none", version("vetline"))
        metrics.WORKER_INFO.labels(*who).set(1)

    def work(self, *ids: UUID) -> str:
        """See Desk.work."""
        with self.turns.working():
            return self.desk.work(*ids)

    def close(self, *, exit_code: int = 0) -> None:
        """Take nothing more, and end this process when the drain is over, whatever hangs: it is given back."""
        if self._closing.is_set():
            return
        self._closing.set()
        self.board.wait_for(DRAINING, "told to stop: finishes what is in hand and takes nothing more")
        self.desk.close()
        self.herald.close()
        self.gate.stop()
        _later(self.settings.drain_s, self._leave, exit_code)

    def stop(self) -> None:
        """After the last item: stop the parts and let go of everything."""
        self._sharing.close()
        for part in (
            self.desk,
            self.herald,
            self._auditor,
            self._sweeper,
            self._heartbeat,
            self._trial,
        ):
            part.stop()
        self._tools.close()
        self._presence.stop()
        self._doorbell.close()
        self._engine.dispose()
        if self._probes is not None:
            self._probes.stop()
        tracing.flush()
        log.info("worker_stopped", worker=self.settings.node)

    def counted_by(self, qos: QoS) -> None:
        """Have a channel count what is in hand here. There is another one after each reconnection."""
        qos.weigh = self.desk.threads_for
        qos.apart = lambda: self._sharing.parts
        self.desk.on_taken = lambda id_: qos.taken(str(id_))  # a message's tag is its first row's id

    def waiting(self) -> int:
        """Messages in the queue. Raises BrokerUnavailable."""
        return self._doorbell.depth()

    def report(self) -> Report:
        """How this worker is, from memory alone."""
        hangs, waiting = self.pulse.silent(), self.board.waiting()
        return Report(
            name=self.settings.node,
            pid=os.getpid(),
            judge=self.settings.judge,
            version=version("vetline"),
            started_at=self._started_at,
            live=not hangs,
            ready=not hangs and not waiting,
            hangs=hangs,
            waiting=tuple(Wait(name=item.name, reason=item.reason, since=item.since) for item in waiting),
            in_hand=self.turns.busy,
            in_hand_most=self.turns.most_in_hand,
            in_flight=self.turns.in_flight,
            in_flight_most=self.turns.limit,
            in_flight_phase=self.turns.phase,
        )

    def _assess(self, claim: Claim, subject: Subject, policy: PolicyRevision, clock: Clock) -> Verdict:
        """The path itself; a suspect of having killed workers walks it alone, under observation."""
        if claim.crashes >= self._lease.suspect_crashes:
            return self._trial.assess(claim, policy, clock)
        return assess(subject, policy, self._tools, clock, recall=partial(self._recall, claim))

    def _recall(self, claim: Claim, view: View) -> Known | None:
        """The verdict about the same pixels under the same policy revision and on the same basis, if it may serve."""
        basis = self._tools.judge.basis() if claim.reuse else None
        if basis is None:
            return None
        return find_known(self._engine, view.pixels_sha256, claim.policy_revision_id, basis)

    def _leave(self, exit_code: int) -> None:
        """The drain took too long: give back what hangs, uncharged, and go. Threads cannot be killed."""
        _later(_GIVE_BACK_S, os._exit, exit_code)
        given = self.desk.give_back_all()
        log.warning("drain_timed_out", given_back=given, drain_s=self.settings.drain_s)
        self._presence.stop()
        os._exit(exit_code)


def _exit_code(error: VetlineError) -> int:
    """As vetline's commands exit: 2 where starting again would change nothing, 75 where a service is down."""
    return _MISUSE if isinstance(error, Misuse) else _SERVICE_DOWN


def _later(seconds: float, act: Callable[[int], object], exit_code: int) -> None:
    timer = threading.Timer(seconds, act, (exit_code,))
    timer.daemon = True
    timer.start()

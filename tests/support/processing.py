"""A worker's processor in this process, with a scripted assessor and everything else real."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager

from sqlalchemy import Engine

from moderation.assessment import Claim
from moderation.doorbell import Doorbell
from moderation.ledger.outcomes import WriteResult
from moderation.ledger.record import Judged
from moderation.policy import PolicyRevision
from moderation.settings import LeaseSettings
from moderation.verdict import Verdict
from worker.health.intake_gate import IntakeGate
from worker.health.readiness import Readiness
from worker.processing.assembly import make_processor
from worker.processing.assess import LazyImage
from worker.processing.assessor import Assessor
from worker.processing.fan_out import FanOut
from worker.processing.outcome_writer import OutcomeWriter
from worker.processing.prefetch import Prefetch
from worker.processing.processor import Processor
from worker.processing.step_timer import StepTimer
from worker.webhooks.dispatcher import WebhookDispatcher
from worker.webhooks.settings import WebhookSettings

WORKER = "w1"

Assess = Callable[[Claim, LazyImage, PolicyRevision, StepTimer], Verdict]


class ScriptedAssessor(Assessor):
    """Answers as the test says; fetches nothing and asks nobody."""

    def __init__(self, script: Assess) -> None:
        self._script = script

    def assess(self, item: Claim, image: LazyImage, policy: PolicyRevision, timer: StepTimer) -> Verdict:
        return self._script(item, image, policy, timer)


class HeldWriter(OutcomeWriter):
    """Writes as a worker does, one group at a time, once `leave` is set."""

    def __init__(self, engine: Engine, webhook_dispatcher: WebhookDispatcher) -> None:
        super().__init__(
            engine,
            worker=WORKER,
            intake_gate=IntakeGate(conditions=Readiness()),
            webhook_dispatcher=webhook_dispatcher,
        )
        self.groups: list[int] = []  # their sizes
        self.inside, self.leave = threading.Event(), threading.Event()

    def record(self, judged: Sequence[Judged]) -> list[WriteResult]:
        self.groups.append(len(judged))
        self.inside.set()
        assert self.leave.wait(10)
        return super().record(judged)


@contextmanager
def dispatcher(engine: Engine) -> Iterator[WebhookDispatcher]:
    """Not started: it sends nothing."""
    made = WebhookDispatcher(engine, lambda _: None, WebhookSettings(), worker=WORKER)
    yield made
    made.stop()


@contextmanager
def processor(
    engine: Engine,
    redis_url: str,
    assess: Assess,
    *,
    prefetch: Prefetch | None = None,
    fan_out: FanOut | None = None,
    bundle: int = 16,
) -> Iterator[Processor]:
    with dispatcher(engine) as webhook_dispatcher, closing(Doorbell(redis_url)) as doorbell:
        made = make_processor(
            engine,
            ScriptedAssessor(assess),
            worker=WORKER,
            lease=LeaseSettings(),
            intake_gate=IntakeGate(conditions=Readiness()),
            doorbell=doorbell,
            webhook_dispatcher=webhook_dispatcher,
            prefetch=prefetch or Prefetch(),
            bundle=bundle,
            fan_out=fan_out,
        )
        yield made
        if fan_out is not None:
            fan_out.close()
        made.stop()

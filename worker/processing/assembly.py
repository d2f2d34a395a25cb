"""Puts the processor's parts together: which part knows which."""

from sqlalchemy import Engine

from moderation.doorbell import Doorbell
from moderation.settings import LeaseSettings
from worker.health.intake_gate import IntakeGate
from worker.processing.assessor import Assessor
from worker.processing.batch_recorder import BatchRecorder
from worker.processing.claimer import Claimer
from worker.processing.fan_out import FanOut
from worker.processing.held_claims import HeldClaims
from worker.processing.item_pace import ItemPace
from worker.processing.item_runner import ItemRunner
from worker.processing.outcome_writer import OutcomeWriter
from worker.processing.policy_cache import PolicyCache
from worker.processing.prefetch import Prefetch
from worker.processing.processor import Processor
from worker.processing.suspect_slot import SuspectSlot
from worker.webhooks.dispatcher import WebhookDispatcher


def make_processor(
    engine: Engine,
    assessor: Assessor,
    *,
    worker: str,
    lease: LeaseSettings,
    intake_gate: IntakeGate,
    doorbell: Doorbell,
    webhook_dispatcher: WebhookDispatcher,
    prefetch: Prefetch,
    bundle: int,
    fan_out: FanOut | None = None,
) -> Processor:
    """See Processor for bundle and fan_out."""
    held_claims, item_pace, suspect_slot = HeldClaims(), ItemPace(bundle), SuspectSlot()
    policies = PolicyCache(engine)
    outcome_writer = OutcomeWriter(
        engine, worker=worker, intake_gate=intake_gate, webhook_dispatcher=webhook_dispatcher
    )
    batch_recorder = BatchRecorder(outcome_writer, held_claims, item_pace)
    return Processor(
        claimer=Claimer(engine, suspect_slot, held_claims, worker=worker, lease=lease),
        suspect_slot=suspect_slot,
        held_claims=held_claims,
        item_runner=ItemRunner(assessor, batch_recorder, policies, worker=worker, lease=lease),
        item_pace=item_pace,
        outcome_writer=outcome_writer,
        policies=policies,
        intake_gate=intake_gate,
        doorbell=doorbell,
        prefetch=prefetch,
        bundle=bundle,
        fan_out=fan_out,
    )

"""From what plain messages name to rows of the ledger, a hundred in one statement."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

import structlog
from sqlalchemy import Engine

from moderation import metrics
from moderation.assessment import Ticket
from moderation.celery_message import MessageRejected, PlainSubmission
from moderation.doorbell import Doorbell
from moderation.errors import BrokerUnavailable, Misuse, UnknownPolicy
from moderation.ledger.policies import PinnedPolicy, pin
from moderation.ledger.submit import new_id, submit
from moderation.settings import QueueSettings
from worker.events import task_progress
from worker.events.outcome import Outcome, OutcomeKind

log = structlog.get_logger()

Refusal = tuple[PlainSubmission, MessageRejected]


@dataclass(frozen=True, slots=True)
class _Call:
    """A row that rings."""

    id: UUID
    uri: str
    policy: str
    priority: int
    crashes: int = 0
    submission_id: UUID | None = None


class PlainAdmission:
    """Submits, and rings what is due while Redis has room; the relay rings the others."""

    def __init__(self, engine: Engine, doorbell: Doorbell, settings: QueueSettings) -> None:
        self._engine = engine
        self._doorbell = doorbell
        self._settings = settings

    def admit(self, plain: Sequence[PlainSubmission]) -> list[Refusal]:
        """A committed row for each, but for those that are returned with the reason. Raises LedgerUnavailable."""
        pinned, refused = self._pinned(plain)
        accepted = [one for one in plain if one.submission.policy in pinned]
        if accepted:
            self._submit(accepted, pinned)
        return refused

    def _pinned(self, plain: Sequence[PlainSubmission]) -> tuple[dict[str, PinnedPolicy], list[Refusal]]:
        """The revision for each ref, asked for one by one: one that is unknown must not keep the others out."""
        pinned: dict[str, PinnedPolicy] = {}
        why: dict[str, MessageRejected] = {}
        for ref in {one.submission.policy for one in plain}:
            try:
                pinned |= pin(self._engine, [ref])
            except UnknownPolicy as exc:
                why[ref] = MessageRejected("unknown_policy", str(exc))
            except Misuse as exc:
                why[ref] = MessageRejected("invalid_submission", str(exc))
        return pinned, [(one, why[one.submission.policy]) for one in plain if one.submission.policy in why]

    def _submit(self, accepted: Sequence[PlainSubmission], pinned: dict[str, PinnedPolicy]) -> None:
        tickets = submit(
            self._engine,
            [one.submission for one in accepted],
            pinned,
            [new_id() for _ in accepted],
            rung=self._has_room(),
        )
        metrics.count_tickets(tickets)
        self._ring(accepted, tickets)
        for one, ticket in zip(accepted, tickets, strict=True):
            if one.named.task_id is not None:
                s = one.submission
                row = task_progress.begin(one.named.task_id, s.uri, s.policy)
                row.end(Outcome(OutcomeKind.ACCEPTED), row=ticket.id)

    def _has_room(self) -> bool:
        """As producers ring: while Redis is less than half full."""
        try:
            return self._doorbell.depth() < self._settings.depth / 2
        except BrokerUnavailable:
            return False

    def _ring(self, accepted: Sequence[PlainSubmission], tickets: Sequence[Ticket]) -> None:
        calls = [
            _Call(ticket.id, one.submission.uri, ticket.policy, one.submission.priority)
            for one, ticket in zip(accepted, tickets, strict=True)
            if ticket.rung and not ticket.known
        ]
        try:
            if calls:
                self._doorbell.ring(calls)
                metrics.RUNG.labels("plain").inc(len(calls))
        except BrokerUnavailable as exc:  # the sweeper finds it out
            log.warning("ring_failed", count=len(calls), error=str(exc))

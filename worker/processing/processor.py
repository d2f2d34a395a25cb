"""The processor: claims the rows of a message, cuts them into parts, and hands the parts out to threads."""

import threading
import time
from concurrent.futures import Future
from functools import partial
from uuid import UUID

import structlog

from moderation import faults, metrics, tracing
from moderation.assessment import Claim
from moderation.doorbell import Doorbell
from moderation.errors import BrokerUnavailable, LedgerUnavailable
from moderation.ledger.outcomes import WriteResult
from worker.events import task_progress
from worker.events.outcome import Outcome, OutcomeKind
from worker.health.intake_gate import IntakeGate
from worker.processing.claimer import Claimer
from worker.processing.fan_out import FanOut, in_parts
from worker.processing.held_claims import HeldClaims
from worker.processing.item_pace import ItemPace
from worker.processing.item_runner import ItemRun, ItemRunner
from worker.processing.outcome_writer import OutcomeWriter
from worker.processing.policy_cache import PolicyCache
from worker.processing.prefetch import Prefetch
from worker.processing.suspect_slot import SuspectSlot

log = structlog.get_logger()

_CLAIM_SECONDS = metrics.STEP_SECONDS.labels("claim")  # no item's timer runs yet


class Processor:
    """One for a worker, called by the threads of Celery's pool. Made by `worker.processing.assembly`.

    doorbell: rings again the rows of a message that are too many for this worker.
    bundle: the most rows that a message rings.
    fan_out: threads for the rows of a message that are too many for its own thread; None: it works off all of them.
    """

    def __init__(
        self,
        *,
        claimer: Claimer,
        suspect_slot: SuspectSlot,
        held_claims: HeldClaims,
        item_runner: ItemRunner,
        item_pace: ItemPace,
        outcome_writer: OutcomeWriter,
        policies: PolicyCache,
        intake_gate: IntakeGate,
        doorbell: Doorbell,
        prefetch: Prefetch,
        bundle: int,
        fan_out: FanOut | None,
    ) -> None:
        self.claimer = claimer
        self.held_claims = held_claims
        self.item_pace = item_pace
        self.taken_at = time.monotonic()  # when a message last came in; the stall watchdog reads it
        self._suspect_slot = suspect_slot
        self._item_runner = item_runner
        self._outcome_writer = outcome_writer
        self._policies = policies
        self._intake_gate = intake_gate
        self._doorbell = doorbell
        self._prefetch = prefetch
        self._bundle = bundle
        self._fan_out = fan_out
        self._closing = threading.Event()

    def work(self, *ids: UUID) -> list[Outcome]:
        """Claim these rows and their siblings, if due; assess and end each.

        Returns the outcomes of those that this thread worked off, or why none was claimed. Where the judge is slow, all
        but the first are handed out, and go on after this returns.
        """
        self.taken_at = time.monotonic()
        faults.at("after_pop")
        if self._closing.is_set():
            return [Outcome(OutcomeKind.CLOSING)]
        ids = self._put_rest_back(ids)
        with self._suspect_slot.entered() as may_take_suspects:
            try:
                start = time.perf_counter()
                claims = self.claimer.claim(ids, suspects=may_take_suspects)
                claim_s = time.perf_counter() - start
            except LedgerUnavailable as exc:
                self._intake_gate.shut(exc)  # the rows stay due; the sweeper rings them again
                return [Outcome(OutcomeKind.LEDGER_UNAVAILABLE)]
            if not claims:
                metrics.NOT_DUE.inc()
                return [Outcome(OutcomeKind.NOT_DUE)]
            metrics.CLAIMED.inc(len(claims))
            _CLAIM_SECONDS.observe(claim_s)
            return self._work_on(claims, ids, claim_s)

    def close(self) -> None:
        """Take nothing more. What is in hand may finish."""
        self._closing.set()

    def give_back_all(self) -> int:
        """Give back what is still in hand, uncharged. Returns how many that was."""
        held = self.held_claims.held()
        self._outcome_writer.give_back_at_once(held)
        return len(held)

    def stop(self) -> None:
        """After the last item."""
        self._item_runner.stop()

    def at_once(self) -> int:
        """How many rows of one message this worker takes on."""
        handed_out = self._fan_out.most if self._fan_out else 0
        return min(self._bundle, max(self.item_pace.rows(), handed_out))

    def threads_for(self, rows: int) -> int:
        """How many threads a message of so many rows has work for."""
        return max(1, -(-min(rows, self.at_once()) // self.item_pace.rows()))

    def _put_rest_back(self, ids: tuple[UUID, ...]) -> tuple[UUID, ...]:
        """As many of a message's rows as this worker takes on; the others ring again, for other workers."""
        count = self.at_once()
        if ids[count:]:
            try:
                self._doorbell.put_back(ids[count:])
            except BrokerUnavailable as exc:  # their ring is lost, which the sweeper finds
                log.warning("put_back_failed", count=len(ids) - count, error=str(exc))
        return ids[:count]

    def _work_on(self, claims: list[Claim], ids: tuple[UUID, ...], claim_s: float) -> list[Outcome]:
        """Hand out all parts but the first, and work that off in this thread."""
        has_suspects = any(self.claimer.is_suspect(item) for item in claims)
        if not has_suspects:
            self._suspect_slot.leave()
        self.held_claims.take(*claims)
        first = claims
        if self._fan_out is not None and not has_suspects:
            first, *others = in_parts(claims, ids, size=self.item_pace.rows())
            for part in others:
                self._fan_out.share(partial(self._work_off_part, part, claim_s))
        self._prefetch.handed_out(ids[0])
        try:
            return [outcome for _, outcome in self._item_runner.run(first, claim_s)]
        finally:
            self.held_claims.drop(*first)

    def _work_off_part(self, part: list[Claim], claim_s: float) -> None:
        """Items that came in a message with others: each is shown as a task of its own.

        This thread does not wait until they are written. The thread that writes them finishes all of its group, so that
        no thread is woken for each. Where there are traces this one waits, since a span ends in its own thread.
        """
        rows = {item.id: self._shown_row(item) for item in part}
        try:
            with task_progress.task(str(part[0].id)):
                if tracing.is_on():
                    for item, outcome in self._item_runner.run(part, claim_s):
                        rows.pop(item.id).end(outcome)
                    return
                for run in self._item_runner.start(part, claim_s):
                    run.written.add_done_callback(partial(self._finish_row, run, rows.pop(run.item.id)))
        finally:  # no row is left, but for a defect
            self.held_claims.drop(*(item for item in part if item.id in rows))
            for row in rows.values():
                row.end(Outcome(OutcomeKind.LOST))

    def _shown_row(self, item: Claim) -> task_progress.TaskRow:
        return task_progress.begin(item.id, item.uri, self._policies.shown_ref(item.policy_revision_id))

    def _finish_row(self, run: ItemRun, row: task_progress.TaskRow, _: Future[WriteResult]) -> None:
        try:
            row.end(self._item_runner.finish(run))
        finally:
            self.held_claims.drop(run.item)

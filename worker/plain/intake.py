"""Takes what plain Celery clients push, and lets go of it once it stands in the ledger.

A thread of every worker, apart from Celery's own consumer: what strangers write is never decoded there. It takes while
the gate is shut as well, since a row waits more safely than a message.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence

import structlog
from sqlalchemy import Engine

from moderation import faults, metrics
from moderation.celery_message import MessageRejected, Named, PlainSubmission, Ring, read_message
from moderation.doorbell import Doorbell
from moderation.errors import BrokerUnavailable, LedgerUnavailable, Unavailable
from moderation.ledger.rejected import note_rejected
from moderation.plain_queue import PlainQueue, Taken
from moderation.settings import QueueSettings
from worker.events import task_progress
from worker.events.outcome import Outcome, OutcomeKind
from worker.plain.admission import PlainAdmission
from worker.plain.rejection import rejection

log = structlog.get_logger()

_LOOK_EVERY_S = 0.2  # while nothing comes
_TRY_AGAIN_S = 1.0  # while Postgres or Redis is away
_RETURN_EVERY_S = 2.0
_MOST = 100  # messages of one turn: one statement and one commit

Message = PlainSubmission | Ring


class PlainIntake:
    """A thread that takes, submits and lets go, until it is stopped."""

    def __init__(
        self,
        engine: Engine,
        queue: PlainQueue,
        doorbell: Doorbell,
        *,
        worker: str,
        settings: QueueSettings,
        tick: Callable[[], None] = lambda: None,
    ) -> None:
        """tick: called at each turn of its loop."""
        self._engine = engine
        self._queue = queue
        self._doorbell = doorbell
        self._worker = worker
        self._admission = PlainAdmission(engine, doorbell, settings)
        self._tick = tick
        self._return_at = 0.0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="plain", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)

    def turn(self) -> int:
        """Take once, up to a hundred; how many. Raises LedgerUnavailable or BrokerUnavailable, and has lost nothing."""
        self._return_overdue()
        taken = self._queue.take(_MOST)
        if not taken:
            return 0
        faults.at("after_plain_pop")
        try:
            self._keep(taken)
        except LedgerUnavailable:
            self._queue.put_back(taken)
            raise
        faults.at("before_plain_done")
        self._queue.done(taken)
        return len(taken)

    def _keep(self, taken: Sequence[Taken]) -> None:
        """Write all of them in few statements; or each by itself, where one of them is what nobody thought of."""
        try:
            self._write(taken)
        except Unavailable:
            raise
        except Exception:
            log.exception("plain_batch_failed", count=len(taken))
            for one in taken:
                self._keep_alone(one)

    def _keep_alone(self, one: Taken) -> None:
        try:
            self._write([one])
        except Unavailable:
            raise
        except Exception as exc:  # a message must not come for ever, nor be gone: it is listed
            log.exception("plain_message_failed", queue=one.queue, bytes=one.size)
            self._reject([(one, Named(), MessageRejected("internal_error", type(exc).__name__))])

    def _write(self, taken: Sequence[Taken]) -> None:
        read = [(one, *read_message(one.raw, size=one.size, step=one.step)) for one in taken]
        rejected = [(one, named, what) for one, named, what in read if isinstance(what, MessageRejected)]
        submissions = [(one, what) for one, _, what in read if isinstance(what, PlainSubmission)]
        rings = [what for _, _, what in read if isinstance(what, Ring)]
        refused = self._admission.admit([what for _, what in submissions])
        by_plain = {id(what): one for one, what in submissions}
        rejected += [(by_plain[id(what)], what.named, why) for what, why in refused]
        self._reject(rejected)
        self._ring(rings)
        metrics.PLAIN.labels("accepted").inc(len(submissions) - len(refused))
        metrics.PLAIN.labels("ring").inc(len(rings))

    def _reject(self, rejected: Sequence[tuple[Taken, Named, MessageRejected]]) -> None:
        if not rejected:
            return
        note_rejected(self._engine, [rejection(*one) for one in rejected], worker=self._worker)
        for (queue, code), count in Counter((one.queue, why.code) for one, _, why in rejected).items():
            metrics.REJECTED.labels(code).inc(count)
            log.warning("messages_rejected", queue=queue, code=code, count=count)
        for _, named, why in rejected:
            if named.task_id is not None:  # else Flower has no name for it
                task_progress.begin(named.task_id, named.uri or "", named.policy or "").end(
                    Outcome(OutcomeKind.FAILED, f"rejected_{why.code}")
                )

    def _ring(self, rings: Sequence[Ring]) -> None:
        """Of the previous release's messages, which name rows in this list: their rows ring where ours do."""
        for ring in rings:
            try:
                self._doorbell.put_back(ring.ids)
            except BrokerUnavailable as exc:  # the ledger rings them again
                log.warning("put_back_failed", count=len(ring.ids), error=str(exc))

    def _return_overdue(self) -> None:
        if time.monotonic() < self._return_at:
            return
        self._return_at = time.monotonic() + _RETURN_EVERY_S
        if count := self._queue.return_overdue():
            metrics.PLAIN.labels("returned").inc(count)
            log.warning("plain_messages_returned", count=count)

    def _run(self) -> None:
        pause_s = _LOOK_EVERY_S
        while not self._stopped.wait(pause_s):
            self._tick()
            try:
                pause_s = 0.0 if self.turn() >= _MOST else _LOOK_EVERY_S
            except Unavailable as exc:
                pause_s = _TRY_AGAIN_S
                log.warning("plain_messages_wait", error=str(exc))
            except Exception:  # a thread that ends in silence leaves messages where they are
                pause_s = _TRY_AGAIN_S
                log.exception("plain_intake_failed")

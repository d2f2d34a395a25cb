"""The batch recorder: records what threads have judged in batches, one statement and one commit each.

A batch is what came in while the one before it was written. So it grows with the load, and an idle worker's verdict
waits for nobody. Each verdict keeps its own fence and its own result.
"""

import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from queue import Empty, SimpleQueue

import structlog

from moderation import faults
from moderation.assessment import Claim
from moderation.ledger.outcomes import WriteResult
from moderation.ledger.record import Judged
from moderation.verdict import Verdict
from worker.processing.held_claims import HeldClaims
from worker.processing.item_pace import ItemPace
from worker.processing.outcome_writer import OutcomeWriter

log = structlog.get_logger()

_MOST = 64  # verdicts of one statement: some 200 KB, written in about 10 ms
_STOP_S = 60.0  # longer than any drain
_BUSY = 8  # items in hand from which a worker is busy

_Waiting = tuple[Judged, Future[WriteResult]]


class BatchRecorder:
    """A thread that hands groups to the outcome writer, started with the first verdict."""

    def __init__(self, outcome_writer: OutcomeWriter, held_claims: HeldClaims, item_pace: ItemPace) -> None:
        self.outcome_writer = outcome_writer
        self.held_claims = held_claims
        self.item_pace = item_pace
        self._queue: SimpleQueue[_Waiting | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def put(self, claim: Claim, verdict: Verdict) -> Future[WriteResult]:
        """What became of the write, once it is over; an exception of the statement, if it cannot be written."""
        future: Future[WriteResult] = Future()
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
                self._thread.start()
        self._queue.put(((claim, verdict), future))
        return future

    def stop(self) -> None:
        """After the last verdict was written, however long that takes: whoever stops us has a deadline for all of it."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join(timeout=_STOP_S)

    def _run(self) -> None:
        while (first := self._queue.get()) is not None:
            group = [first, *self._gather()]
            if not self._written(group):
                for waiting in group:  # one of them cannot be written; the others are not to suffer for it
                    self._written([waiting], last_try=True)

    def _gather(self) -> list[_Waiting]:
        """What else has come, or comes within moments; nothing more can, once all that is in hand is here."""
        in_hand = len(self.held_claims)
        until = time.monotonic() + (self.item_pace.linger_s() if in_hand > _BUSY else 0.0)
        more: list[_Waiting] = []
        while len(more) < _MOST - 1:
            all_here = len(more) + 1 >= len(self.held_claims)
            wait_s = 0.0 if all_here else until - time.monotonic()
            try:
                waiting = self._queue.get(timeout=wait_s) if wait_s > 0 else self._queue.get_nowait()
            except Empty:
                break
            if waiting is None:
                self._queue.put(None)  # for the loop, after this group
                break
            more.append(waiting)
        return more

    def _written(self, group: Sequence[_Waiting], *, last_try: bool = False) -> bool:
        try:
            results = self.outcome_writer.record([judged for judged, _ in group])
        except Exception as exc:  # the thread must live; whoever waits gets the exception
            if last_try or len(group) == 1:
                group[0][1].set_exception(exc)
                return True
            log.exception("group_not_written", count=len(group))
            return False
        for ((claim, _), future), result in zip(group, results, strict=True):
            self.held_claims.drop(claim)  # here, so that no beat misses it in the ledger
            future.set_result(result)
            faults.at("after_record", claim.uri)
        return True

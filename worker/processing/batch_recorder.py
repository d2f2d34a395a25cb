"""Records what threads have judged in batches. One statement and one commit for all that has come in.

A group is what came while the one before it was written, so it grows with the load and an idle worker's verdict waits
for nobody. Each verdict keeps its own fence and its own answer.
"""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from queue import Empty, SimpleQueue

import structlog

from moderation.assessment import Claim
from moderation.ledger.outcomes import WriteResult
from moderation.ledger.record import Judged
from moderation.verdict import Verdict

log = structlog.get_logger()

_MOST = 64  # verdicts of one statement: some 200 KB, written in about 10 ms
_STOP_S = 60.0  # longer than any drain
_BUSY = 8  # items in hand from which a worker is busy

_Waiting = tuple[Judged, Future[WriteResult]]


class BatchRecorder:
    """A thread that writes groups, started with the first verdict.

    write: writes a group and says for each, in order, what became of it; waits for Postgres by itself.
    in_hand: how many items this worker has now.
    linger_s: how long a busy worker's verdict may wait for more to join.
    """

    def __init__(
        self,
        write: Callable[[Sequence[Judged]], list[WriteResult]],
        *,
        in_hand: Callable[[], int],
        linger_s: Callable[[], float] = lambda: 0.05,
    ) -> None:
        self._write = write
        self._in_hand = in_hand
        self._linger_s = linger_s
        self._queue: SimpleQueue[_Waiting | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def put(self, claim: Claim, verdict: Verdict) -> Future[WriteResult]:
        """What becomes of it, once it is written; an exception of the statement, if it cannot be."""
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
        until = time.monotonic() + (self._linger_s() if self._in_hand() > _BUSY else 0.0)
        more: list[_Waiting] = []
        while len(more) < _MOST - 1:
            left_s = until - time.monotonic() if len(more) + 1 < self._in_hand() else 0.0
            try:
                waiting = self._queue.get(timeout=left_s) if left_s > 0 else self._queue.get_nowait()
            except Empty:
                break
            if waiting is None:
                self._queue.put(None)  # for the loop, after this group
                break
            more.append(waiting)
        return more

    def _written(self, group: Sequence[_Waiting], *, last_try: bool = False) -> bool:
        try:
            endings = self._write([judged for judged, _ in group])
        except Exception as exc:  # the thread must live; who waits is told
            if last_try or len(group) == 1:
                group[0][1].set_exception(exc)
                return True
            log.exception("group_not_written", count=len(group))
            return False
        for (_, future), ending in zip(group, endings, strict=True):
            future.set_result(ending)
        return True

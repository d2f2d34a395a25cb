"""The sweeper: frees what dead workers held and rings what is due. In every worker; one sweeps at a time."""

import random
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from uuid import UUID

import structlog
from sqlalchemy import Engine

from moderation import faults, metrics
from moderation.doorbell import Doorbell
from moderation.errors import BrokerUnavailable, LedgerUnavailable
from moderation.ledger.expiry import cancel_expired
from moderation.ledger.relay import Due, count_pushed, ring_due
from moderation.ledger.sweep import another_swept, any_overdue, expire, find_lost
from moderation.settings import LeaseSettings, QueueSettings

log = structlog.get_logger()

_RING_MORE_S = 0.2  # while work runs off so fast that the rows rung ahead would not last from sweep to sweep


class Sweeper:
    """A thread that sweeps every second until it is stopped."""

    def __init__(
        self,
        engine: Engine,
        doorbell: Doorbell,
        *,
        worker: str,
        lease: LeaseSettings,
        queue: QueueSettings,
        bundle: Callable[[], int] = lambda: 1,
        tick: Callable[[], None] = lambda: None,
    ) -> None:
        """bundle: how many rows a message may ring now. tick: called at each turn of its loop."""
        self._tick = tick
        self._engine = engine
        self._doorbell = doorbell
        self._worker = worker
        self._lease = lease
        self._queue = queue
        self._bundle = bundle
        self._runs_off = False
        self._look_for_lost_at = 0.0
        self._awake_since = time.time()  # not monotonic, which stands still while the machine sleeps
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sweeper", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join(timeout=self._queue.sweep_s)

    def sweep(self) -> str:
        """One sweep; what came of it, as vetline_sweeps_total has it: another worker may have just been at it."""
        try:
            if another_swept(self._engine, worker=self._worker, within_s=0.8 * self._queue.sweep_s):
                self._runs_off = False  # theirs to follow
                return "elsewhere"
            freed = self._expire()
            if freed is None:
                return "elsewhere"
            if freed:
                metrics.LEASES_EXPIRED.inc(len(freed))
                log.warning("leases_expired", count=len(freed), first=str(freed[0]))
            if late := cancel_expired(self._engine):
                metrics.EXPIRED.inc(late)
                log.info("waited_until_expired", count=late)
            self._find_lost()
            self._ring()
        except LedgerUnavailable as exc:
            log.warning("sweep_without_ledger", error=str(exc))
            return "no_ledger"
        except BrokerUnavailable as exc:
            log.warning("sweep_without_redis", error=str(exc))
            return "no_redis"
        return "swept"

    def ring_more(self) -> None:
        """Ring what is due, between two sweeps; quietly not, where a service is away."""
        with suppress(LedgerUnavailable, BrokerUnavailable):
            self._ring()

    def _expire(self) -> list[UUID] | None:
        return expire(
            self._engine,
            worker=self._worker,
            max_crashes=self._lease.max_crashes,
            awake_s=time.time() - self._awake_since,
            spare_s=1.5 * self._lease.beat_s,  # one beat, and room for it to be slow
        )

    def _ring(self) -> None:
        """First what was freed, given back or lost, however full the queues; then as many as there is room for."""
        depth = self._queue.depth
        count = ring_due(self._engine, self._push, urgent=depth, others=depth, only_first=True)
        # A row rung is either in a message or popped a moment ago; a Redis that was emptied has room at once.
        waiting, messages = count_pushed(self._engine), self._doorbell.depths()
        ahead = [
            min(rows, waiting_in * self._queue.bundle)
            for rows, waiting_in in zip((waiting.urgent, waiting.others), messages, strict=True)
        ]
        count += ring_due(
            self._engine,
            self._push,
            urgent=depth - ahead[0],
            others=depth - ahead[1],
            low_share=self._queue.low_share,
        )
        self._runs_off = count > depth / 10
        if count:
            log.debug("rung", count=count, ahead=ahead)

    def _find_lost(self) -> None:
        """Rows whose message is neither claimed nor in the queue: popped by a worker that died, or flushed."""
        after_s = self._queue.ring_again_s
        if time.monotonic() < self._look_for_lost_at:
            return
        self._look_for_lost_at = time.monotonic() + after_s / 4  # it reads the whole queue where that is slow
        if any_overdue(self._engine, after_s=after_s):
            lost = find_lost(self._engine, self._doorbell.waiting(), after_s=after_s)
            if lost:
                metrics.RINGS_LOST.inc(len(lost))
                log.warning("rings_lost", count=len(lost), first=str(lost[0]))

    def _push(self, due: Sequence[Due]) -> None:
        faults.at("before_ring")
        self._doorbell.ring(due, bundle=self._bundle())
        metrics.RUNG.labels("sweeper").inc(len(due))

    def _run(self) -> None:
        # Workers started together would all ask in the same instant.
        sweep_at = time.monotonic() + self._queue.sweep_s * random.uniform(0.2, 1.0)  # noqa: S311 - no secret
        while not self._stopped.wait(max(0.0, self._next(sweep_at) - time.monotonic())):
            self._tick()
            try:
                if time.monotonic() < sweep_at:
                    self.ring_more()
                    continue
                metrics.SWEEPS.labels(self.sweep()).inc()
            except Exception:  # a sweeper that ends in silence strands rows: River had jobs stuck for 91 days
                metrics.SWEEPS.labels("failed").inc()
                log.exception("sweep_failed")
            sweep_at = time.monotonic() + self._queue.sweep_s * random.uniform(0.9, 1.1)  # noqa: S311 - as above

    def _next(self, sweep_at: float) -> float:
        return min(sweep_at, time.monotonic() + _RING_MORE_S) if self._runs_off else sweep_at

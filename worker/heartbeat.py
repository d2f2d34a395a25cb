"""The heartbeat: renews the lease of everything in hand, in one statement for the whole worker."""

import threading
from collections.abc import Callable

import structlog
from sqlalchemy import Engine

from moderation import metrics
from moderation.errors import LedgerUnavailable
from moderation.ledger.claim import beat
from moderation.settings import LeaseSettings
from worker.processing.claimer import Claimer
from worker.processing.held_claims import HeldClaims

log = structlog.get_logger()

_TRY_AGAIN_S = 1.0  # a beat that did not reach Postgres is tried again well before the lease runs out


class Heartbeat:
    """A thread that beats until it is stopped.

    claimer: what may run under our name without our knowing is given back once Postgres answers.
    tick: called at each turn of its loop.
    """

    def __init__(
        self,
        engine: Engine,
        held_claims: HeldClaims,
        claimer: Claimer,
        settings: LeaseSettings,
        *,
        tick: Callable[[], None] = lambda: None,
    ) -> None:
        self._tick = tick
        self._engine = engine
        self._held_claims = held_claims
        self._settings = settings
        self._claimer = claimer
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join(timeout=_TRY_AGAIN_S)

    def _run(self) -> None:
        wait_s = self._settings.beat_s
        while not self._stopped.wait(wait_s):
            self._tick()
            wait_s = self._settings.beat_s if self._beat() else _TRY_AGAIN_S

    def _beat(self) -> bool:
        held = self._held_claims.held()
        try:
            lost = beat(self._engine, held, lease_s=self._settings.lease_s)
            self._claimer.settle_doubts()
        except LedgerUnavailable as exc:
            metrics.BEATS_MISSED.inc()
            log.warning("beat_missed", held=len(held), error=str(exc))
            return False
        except Exception:  # whatever it is, a worker without a heartbeat would lose all it has
            metrics.BEATS_MISSED.inc()
            log.exception("beat_failed")
            return False
        # An item that ended between `held` and the statement is no loss.
        for claim in [c for c in self._held_claims.held() if c.id in lost and c in held]:
            metrics.LEASES_LOST.labels("beat").inc()
            log.warning("lease_lost", assessment=str(claim.id), attempt=claim.attempt)
        return True

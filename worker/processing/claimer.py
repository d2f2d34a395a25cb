"""The claimer: claims the rows of a message for this worker, and leaves suspects for a moment alone."""

import threading
from collections.abc import Callable, Sequence
from functools import partial
from uuid import UUID

import structlog
from sqlalchemy import Engine

from moderation.assessment import Claim
from moderation.ledger.claim import claim, defer_suspects
from moderation.ledger.outcomes import release_doubtful
from moderation.settings import LeaseSettings
from worker.processing.held_claims import HeldClaims
from worker.processing.suspect_slot import SuspectSlot

log = structlog.get_logger()

_SUSPECT_WAIT_S = 3.0  # an isolated run takes a fraction of that once its process runs


class Claimer:
    """Claims rows, suspects where the suspect slot is free, and remembers claims that may stand though their reply was lost.

    held_claims: what this worker knows that it holds.
    """

    def __init__(
        self,
        engine: Engine,
        suspect_slot: SuspectSlot,
        held_claims: HeldClaims,
        *,
        worker: str,
        lease: LeaseSettings,
    ) -> None:
        self._engine = engine
        self._worker = worker
        self._lease = lease
        self._suspect_slot = suspect_slot
        self._held_claims = held_claims
        self._doubtful: set[UUID] = set()  # rows whose claim may stand
        self._doubt = threading.Lock()

    def is_suspect(self, item: Claim) -> bool:
        return item.crashes >= self._lease.suspect_crashes

    def claim(self, ids: Sequence[UUID], *, suspects: bool) -> list[Claim]:
        """The claims of these rows and their siblings; a suspect's only where no other is in hand.

        suspects: whether this thread has the suspect slot. Suspects wait outside: in hand, they would go down with the
        worker again and again, and keep others out. Raises LedgerUnavailable.
        """
        suspect = self._lease.suspect_crashes
        take = partial(claim, self._engine, ids, worker=self._worker, lease_s=self._lease.lease_s)
        if suspects:
            return self._surely(ids, take)
        claims = self._surely(ids, partial(take, suspect=suspect))
        claimed_ids = {item.id for item in claims}
        unclaimed = [id_ for id_ in ids if id_ not in claimed_ids]
        if not unclaimed or not defer_suspects(
            self._engine, unclaimed, suspect=suspect, delay_s=_SUSPECT_WAIT_S
        ):
            return claims
        return claims or (self._surely(ids, take) if self._suspect_slot.enter(_SUSPECT_WAIT_S) else [])

    def settle_doubts(self) -> None:
        """Give back what runs under our name and never reached us. Raises LedgerUnavailable."""
        with self._doubt:
            doubtful = self._doubtful - {item.id for item in self._held_claims.held()}
        if not doubtful:
            return
        released = release_doubtful(self._engine, list(doubtful), worker=self._worker)
        with self._doubt:
            self._doubtful -= doubtful
        if released:
            log.warning("lost_claims_released", count=len(released), first=str(released[0]))

    def _surely(self, ids: Sequence[UUID], take: Callable[[], list[Claim]]) -> list[Claim]:
        """Claim, and remember for the next beat what may be ours without our knowing."""
        with self._doubt:
            doubted = self._doubtful.intersection(ids)
            self._doubtful -= doubted
        claims: list[Claim] | None = None
        try:
            claims = take()
            return claims
        finally:
            unsure = set(ids) if claims is None else doubted - {item.id for item in claims}
            if unsure:
                with self._doubt:
                    self._doubtful |= unsure

"""What this worker has in hand: the claims whose leases it must renew."""

import threading
from uuid import UUID

from moderation.assessment import Claim


class Hand:
    """A set of claims, safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._claims: dict[UUID, Claim] = {}

    def take(self, claim: Claim) -> None:
        with self._lock:
            self._claims[claim.id] = claim

    def drop(self, claim: Claim) -> None:
        """Forget this claim, unless a newer one of the same assessment has taken its place."""
        with self._lock:
            if self._claims.get(claim.id) == claim:
                del self._claims[claim.id]

    def held(self) -> list[Claim]:
        with self._lock:
            return list(self._claims.values())

    def __len__(self) -> int:
        return len(self._claims)

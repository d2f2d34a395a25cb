"""The claims that this worker holds, whose leases it must renew."""

import threading
from uuid import UUID

from moderation.assessment import Claim


class HeldClaims:
    """A set of claims, safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._claims: dict[UUID, Claim] = {}

    def take(self, *claims: Claim) -> None:
        with self._lock:
            self._claims |= {claim.id: claim for claim in claims}

    def drop(self, *claims: Claim) -> None:
        """Forget these claims, but not a newer one of the same assessment that has taken a claim's place."""
        with self._lock:
            for claim in claims:
                if self._claims.get(claim.id) == claim:
                    del self._claims[claim.id]

    def held(self) -> list[Claim]:
        with self._lock:
            return list(self._claims.values())

    def __len__(self) -> int:
        return len(self._claims)

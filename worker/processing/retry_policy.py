"""The retry policy: what an error makes of an item. Pure: it writes nothing and reads no clock."""

import random
from dataclasses import dataclass

from moderation.assessment import Claim
from moderation.errors import Transient, Unavailable, VetlineError
from moderation.settings import LeaseSettings
from worker.events.outcome import OutcomeKind

_GIVEN_BACK_DELAY_S = 2.0  # long enough not to come straight back to the worker whose runtime is down
_LEAST_DELAY_S = 0.1


@dataclass(frozen=True, slots=True)
class RetryDecision:
    """kind: FAILED (final), LATER (tried again, charged) or BACK (tried again, uncharged).

    delay_s: how long it is not due; 0 where it is final.
    """

    kind: OutcomeKind
    delay_s: float


def decide(error: VetlineError, item: Claim, lease: LeaseSettings) -> RetryDecision:
    """What the error's class says, within the attempts that an item has."""
    if isinstance(error, Unavailable):
        return RetryDecision(OutcomeKind.BACK, _GIVEN_BACK_DELAY_S)
    if isinstance(error, Transient) and item.charged < lease.max_attempts:
        return RetryDecision(OutcomeKind.LATER, _delay_s(error, item, lease))
    return RetryDecision(OutcomeKind.FAILED, 0.0)


def _delay_s(error: Transient, item: Claim, lease: LeaseSettings) -> float:
    """Full jitter under a doubling bound, and never sooner than the other side asked for.

    The same for siblings, so that they come back together.
    """
    bound_s = min(lease.retry_cap_s, lease.retry_base_s * 2 ** (item.charged - 1))
    jitter = random.Random(f"{item.submission_id or item.id} {item.charged}")  # noqa: S311 - no secret
    return max(_LEAST_DELAY_S, jitter.uniform(0, bound_s), error.retry_after_s or 0.0)

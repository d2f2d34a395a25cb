"""When a submission rings: at once while Redis is shallow; the sweeper rings the rest in its order."""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from moderation import metrics
from moderation.assessment import Priority, Submission, Ticket
from moderation.doorbell import Doorbell
from moderation.errors import BrokerUnavailable
from moderation.log import get_logger
from moderation.settings import QueueSettings

log = get_logger(__name__)

_LOOK_AGAIN_S = 0.5  # a full or absent Redis is asked again no more often than this
_DOWN_S = 5.0
_AT_ONCE = (
    100  # more than that is the relay's, which rings several rows with one message and lets lanes take turns
)


@dataclass(frozen=True, slots=True)
class _NewRow:
    id: UUID
    uri: str
    policy: str
    priority: int
    submission_id: UUID | None
    crashes: int = 0


class RingPolicy:
    """Decides before a submission whether it will be rung, and rings it after. Never raises for Redis' sake."""

    def __init__(self, redis_url: str | None, settings: QueueSettings) -> None:
        self._settings = settings
        self._doorbell = Doorbell(redis_url, settings) if redis_url else None
        self._lock = threading.Lock()
        self._depths = (0, 0)
        self._ask_at = 0.0

    def promise(self, submissions: Sequence[Submission]) -> bool:
        """Whether these rows will be rung here once they are committed; the relay rings them otherwise."""
        if self._doorbell is None or len(submissions) > _AT_ONCE:
            return False
        urgent = sum(s.priority is Priority.HIGH for s in submissions)
        return self._has_room(urgent, len(submissions) - urgent)

    def ring(self, submissions: Sequence[Submission], tickets: Sequence[Ticket]) -> None:
        """Ring those that are ours to ring. A Redis that does not answer is left alone; the sweeper rings again."""
        calls = [
            _NewRow(ticket.id, s.uri, ticket.policy, int(s.priority), s.submission_id)
            for s, ticket in zip(submissions, tickets, strict=True)
            if ticket.rung
        ]
        if not calls or self._doorbell is None:
            return
        try:
            depths = self._doorbell.ring(calls)
        except BrokerUnavailable as exc:
            log.warning("ring_failed", count=len(calls), error=str(exc))
            self._note(self._full, _DOWN_S)
        else:
            metrics.RUNG.labels("producer").inc(len(calls))
            self._note(depths, _LOOK_AGAIN_S)

    def close(self) -> None:
        if self._doorbell is not None:
            self._doorbell.close()

    @property
    def _full(self) -> tuple[int, int]:
        return self._settings.depth, self._settings.depth

    def _has_room(self, urgent: int, others: int) -> bool:
        """Up to half the depth of each queue that these would go to: the other half is the relay's."""
        assert self._doorbell is not None
        with self._lock:
            due = time.monotonic() >= self._ask_at
            known = self._depths
        if due:
            try:
                known = self._doorbell.depths()
            except BrokerUnavailable as exc:
                log.warning("redis_unavailable", error=str(exc), left_alone_s=_DOWN_S)
                self._note(self._full, _DOWN_S)
                return False
            self._note(known, _LOOK_AGAIN_S)
        half = self._settings.depth // 2
        return all(
            count == 0 or depth + count <= half for depth, count in zip(known, (urgent, others), strict=True)
        )

    def _note(self, depths: tuple[int, int], good_for_s: float) -> None:
        with self._lock:
            self._depths = depths
            self._ask_at = time.monotonic() + good_for_s

"""Rings what was just submitted, while Redis is shallow; the sweeper rings the rest in its order."""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

import structlog

from moderation import metrics
from moderation.assessment import Submission, Ticket
from moderation.doorbell import Doorbell
from moderation.errors import BrokerUnavailable
from moderation.settings import QueueSettings

log = structlog.get_logger()

_LOOK_AGAIN_S = 0.5  # a full or absent Redis is asked again no more often than this
_DOWN_S = 5.0


@dataclass(frozen=True, slots=True)
class _Call:
    id: UUID
    uri: str
    policy: str
    priority: int
    submission_id: UUID | None
    crashes: int = 0


class Ringing:
    """Decides before a submission whether it will be rung, and rings it after. Never raises for Redis' sake."""

    def __init__(self, redis_url: str | None, settings: QueueSettings) -> None:
        self._settings = settings
        self._doorbell = Doorbell(redis_url, settings) if redis_url else None
        self._lock = threading.Lock()
        self._depth = 0
        self._ask_at = 0.0

    def promise(self, count: int) -> bool:
        """Whether these rows will be rung here once they are committed; the sweeper rings them otherwise."""
        return self._doorbell is not None and self._has_room(count)

    def ring(self, submissions: Sequence[Submission], tickets: Sequence[Ticket]) -> None:
        """Ring the new ones. A Redis that does not answer is left alone for a while; the sweeper rings again."""
        calls = [
            _Call(ticket.id, s.uri, ticket.policy, int(s.priority), s.submission_id)
            for s, ticket in zip(submissions, tickets, strict=True)
            if not ticket.known
        ]
        if not calls or self._doorbell is None:
            return
        try:
            depth = self._doorbell.ring(calls)
        except BrokerUnavailable as exc:
            log.warning("ring_failed", count=len(calls), error=str(exc))
            self._note(self._settings.depth, _DOWN_S)
        else:
            metrics.RUNG.labels("producer").inc(len(calls))
            self._note(depth, _LOOK_AGAIN_S)

    def close(self) -> None:
        if self._doorbell is not None:
            self._doorbell.close()

    def _has_room(self, count: int) -> bool:
        assert self._doorbell is not None
        with self._lock:
            due = time.monotonic() >= self._ask_at
            known = self._depth
        if due:
            try:
                known = self._doorbell.depth()
            except BrokerUnavailable as exc:
                log.warning("redis_unavailable", error=str(exc), left_alone_s=_DOWN_S)
                self._note(self._settings.depth, _DOWN_S)
                return False
            self._note(known, _LOOK_AGAIN_S)
        return known + count <= self._settings.depth

    def _note(self, depth: int, good_for_s: float) -> None:
        with self._lock:
            self._depth = depth
            self._ask_at = time.monotonic() + good_for_s

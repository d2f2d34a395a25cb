"""Fan-out: several threads work on the rows of one message at once.

Celery gives a message one thread of its thread pool, which works on the first rows. Where the judge is slow, the
other rows go to a thread pool of our own, so that the runtime is asked about all of them at once.
"""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import structlog

from moderation.assessment import Claim
from worker.concurrency.limiter import ConcurrencyLimiter

log = structlog.get_logger()

_PART = 8  # of what is in hand, at most, comes in one message: the others are there to keep the judge busy meanwhile


class FanOut:
    """Threads, made as they are needed. What is shared out counts as in hand, beside Celery's own threads."""

    def __init__(self, limiter: ConcurrencyLimiter, *, threads: int) -> None:
        self._limiter = limiter
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="row")
        self._lock = threading.Lock()
        self._parts = 0

    @property
    def parts(self) -> int:
        """How many parts were shared out and have not ended: each has a thread, or waits for one."""
        return self._parts

    @property
    def most(self) -> int:
        """How many rows of one message this worker may take on, so that a message is a small part of what it has."""
        return self._limiter.busy_threads_limit // _PART

    def share(self, part: Callable[[], object]) -> None:
        """Have a part done in a thread of ours. It says by itself what came of it."""
        self._count(+1)
        try:
            self._pool.submit(self._do, part)
        except RuntimeError:  # closed: nobody would do it
            self._count(-1)
            raise

    def close(self) -> None:
        """After the last part."""
        self._pool.shutdown()

    def _do(self, part: Callable[[], object]) -> None:
        try:
            with self._limiter.working():
                part()
        except Exception:  # nobody waits for it; what it held is freed by the lease
            log.exception("part_failed")
        finally:
            self._count(-1)

    def _count(self, step: int) -> None:
        with self._lock:
            self._parts += step


def in_parts(claims: Sequence[Claim], ids: Sequence[UUID], *, size: int) -> list[list[Claim]]:
    """Claims in the order of their message's ids, as many to a part as a thread works off in a moment.

    Siblings, which share an image, stay together; those that their message does not name come last.
    """
    place = {id_: number for number, id_ in enumerate(ids)}
    images: dict[UUID, list[Claim]] = {}
    for item in sorted(claims, key=lambda claim: place.get(claim.id, len(place))):
        images.setdefault(item.submission_id or item.id, []).append(item)
    parts: list[list[Claim]] = [[]]
    for image in images.values():
        if parts[-1] and len(parts[-1]) + len(image) > size:
            parts.append([])
        parts[-1] += image
    return parts

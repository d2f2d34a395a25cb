"""The webhook dispatcher: tells that verdicts were recorded, and rings for the endpoints that are due. One for a worker."""

import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import structlog
from kombu.exceptions import OperationalError
from sqlalchemy import Engine

from moderation.errors import LedgerUnavailable
from moderation.ledger.deliveries import due
from moderation.ledger.notify import notify_recorded
from worker.webhooks.post import Poster
from worker.webhooks.sender import Sender
from worker.webhooks.settings import WebhookSettings

log = structlog.get_logger()

_TELL_EVERY_S = 0.1  # at most: one notification for whatever was recorded since, however much


class WebhookDispatcher:
    """A thread that tells and rings, and the senders that work off what is rung.

    ring: sends the message that names an endpoint; raises kombu's OperationalError where Redis is away.
    """

    def __init__(
        self, engine: Engine, ring: Callable[[UUID], None], settings: WebhookSettings, *, worker: str
    ) -> None:
        self._engine = engine
        self._ring = ring
        self._settings = settings
        self._news = threading.Event()
        self._stopped = threading.Event()
        self._poster = Poster(settings)
        self._sender = Sender(engine, self._poster, settings, worker=worker)
        # Their own threads: an endpoint that hangs is not to hold a slot that judges images.
        self._senders = ThreadPoolExecutor(settings.senders, thread_name_prefix="webhook")
        self._accepted: set[UUID] = set()  # endpoints whose senders have not ended
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="webhook-dispatcher", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def recorded(self) -> None:
        """A verdict was committed."""
        self._news.set()

    def accept(self, id_: UUID) -> str:
        """Have the lease taken on this endpoint, and return at once. A word for Flower."""
        with self._lock:
            if id_ in self._accepted or self._stopped.is_set():
                return "in_hand" if id_ in self._accepted else "closing"
            self._accepted.add(id_)
        self._senders.submit(self._deliver, id_)
        return "accepted"

    def close(self) -> None:
        """Begin nothing more. Deliveries that are under way end, and the rest waits for another worker."""
        self._stopped.set()
        self._sender.stop()
        self._news.set()

    def stop(self) -> None:
        """Close, and wait for what is under way."""
        self.close()
        if self._thread.is_alive():
            self._thread.join(timeout=2)
        self._senders.shutdown(wait=True, cancel_futures=True)
        self._poster.close()

    def _deliver(self, id_: UUID) -> None:
        try:
            self._sender.deliver(id_)
        finally:
            with self._lock:
                self._accepted.discard(id_)

    def _run(self) -> None:
        while not self._stopped.is_set():
            # Workers started together would all look in the same instant.
            was_recorded = self._news.wait(self._settings.look_s * random.uniform(0.8, 1.0))  # noqa: S311 - no secret
            self._news.clear()
            try:
                if was_recorded:
                    notify_recorded(self._engine)
                self._ring_due()
            except LedgerUnavailable as exc:
                log.warning("herald_without_ledger", error=str(exc))
            except OperationalError as exc:
                log.warning("herald_without_redis", error=str(exc))
            except Exception:  # a webhook dispatcher that ends in silence would leave endpoints waiting
                log.exception("herald_failed")
            self._stopped.wait(_TELL_EVERY_S)

    def _ring_due(self) -> None:
        for id_ in due(self._engine, ring_again_s=self._settings.ring_again_s):
            self._ring(id_)

"""Sends to an endpoint under a delivery lease, in order, until nothing is left, it fails, or the time is over."""

import random
import threading
import time
from uuid import UUID

import structlog
from sqlalchemy import Engine

from moderation.errors import LedgerUnavailable, VetlineError
from moderation.ledger import deliveries
from moderation.ledger.deliveries import DeliveryLease
from moderation.ledger.feed import Page, read, verdict_of
from moderation.ledger.webhooks import secrets_of
from moderation.published import PublishedVerdict
from moderation.webhook import verdict_message
from worker.webhooks.post import DeliveryOutcome, Poster
from worker.webhooks.settings import WebhookSettings

log = structlog.get_logger()

_PAGE = 50  # verdicts read at a time; a round at a quick endpoint sends some hundreds


class Sender:
    """Sends to one endpoint at a time in each thread that calls `deliver`."""

    def __init__(self, engine: Engine, poster: Poster, settings: WebhookSettings, *, worker: str) -> None:
        self._engine = engine
        self._poster = poster
        self._settings = settings
        self._worker = worker
        self._stopped = threading.Event()

    def stop(self) -> None:
        """End every round behind the delivery that is under way."""
        self._stopped.set()

    def deliver(self, id_: UUID) -> None:
        """Take the lease on this endpoint, if one is to be had. Never raises: the sweep finds it again."""
        try:
            lease = deliveries.take(self._engine, id_, holder=self._worker, lease_s=self._settings.lease_s)
            if lease is not None:
                _DeliveryRound(self._engine, self._poster, self._settings, lease, self._stopped).go()
        except LedgerUnavailable as exc:  # the lease ends by itself, and the round goes on from its place
            log.warning("delivery_without_ledger", webhook=str(id_), error=str(exc))
        except Exception:
            log.exception("delivery_failed", webhook=str(id_))


class _DeliveryRound:
    """One round under a lease. Each delivery is kept before the next is begun."""

    def __init__(
        self,
        engine: Engine,
        poster: Poster,
        settings: WebhookSettings,
        lease: DeliveryLease,
        stopped: threading.Event,
    ) -> None:
        self._engine = engine
        self._poster = poster
        self._settings = settings
        self._lease = lease
        self._stopped = stopped
        self._failures = lease.failures
        self._sent = 0
        self._ends = time.monotonic() + settings.turn_s
        self._keys = secrets_of(engine, lease.id)

    def go(self) -> None:
        try:
            if self._send_again() and self._send_on():
                deliveries.release(self._engine, self._lease)
        except VetlineError as error:
            if isinstance(error, LedgerUnavailable):
                raise
            self._fail(DeliveryOutcome(str(error)), None)
        log.debug("delivered", webhook=self._lease.name, count=self._sent)

    def _over(self) -> bool:
        return self._stopped.is_set() or time.monotonic() > self._ends

    def _send_again(self) -> bool:
        """What was set aside and asked for again. One that fails stays aside and holds up nothing. False: lease lost."""
        for assessment in deliveries.asked_again(self._engine, self._lease):
            verdict = verdict_of(self._engine, assessment)
            if self._over() or verdict is None:
                break
            outcome = self._post(verdict)
            if outcome.error is not None:
                deliveries.refused_again(self._engine, self._lease, assessment, outcome.error)
                break
            if not deliveries.delivered_again(self._engine, self._lease, assessment):
                return False
            self._sent += 1
        return True

    def _send_on(self) -> bool:
        """The feed from the endpoint's place on. False where the round ended otherwise than well."""
        place = self._lease.place
        while not self._over():
            page = read(self._engine, place, self._lease.wanted, limit=_PAGE)
            if not self._send_page(page):
                return False
            if self._over():
                break
            if page.upto > place and not deliveries.passed_over(self._engine, self._lease, page.upto):
                return False
            place = page.upto
            if page.done:
                break
        return True

    def _send_page(self, page: Page) -> bool:
        for verdict in page.verdicts:
            if self._over():
                break
            outcome = self._post(verdict)
            if outcome.error is not None:
                self._fail(outcome, verdict)
                return False
            if not deliveries.delivered(self._engine, self._lease, verdict.cursor):
                return False
            self._sent += 1
            self._failures = 0
        return True

    def _post(self, verdict: PublishedVerdict) -> DeliveryOutcome:
        return self._poster.post(self._lease.url, verdict_message(self._lease.id, verdict), self._keys)

    def _fail(self, outcome: DeliveryOutcome, verdict: PublishedVerdict | None) -> None:
        error = outcome.error or "failed"
        delay_s = self._delay_s(outcome)
        aside = deliveries.failed(
            self._engine,
            self._lease,
            error,
            delay_s=delay_s,
            give_up_s=self._settings.give_up_s,
            gone=outcome.gone,
            at=None if verdict is None else (verdict.cursor, verdict.assessment_id),
        )
        fields = log.bind(webhook=self._lease.name, error=error, failures=self._failures + 1)
        fields.warning("webhook_set_aside" if aside else "webhook_failed", retry_in_s=round(delay_s, 1))

    def _delay_s(self, outcome: DeliveryOutcome) -> float:
        """The upper half of a doubling bound, and never sooner than the endpoint asked for."""
        doubled = self._settings.retry_base_s * 2.0 ** min(self._failures, 30)
        bound_s = min(self._settings.retry_cap_s, doubled)
        jittered = bound_s * random.uniform(0.5, 1.0)  # noqa: S311 - no secret
        return max(jittered, outcome.retry_after_s or 0.0)

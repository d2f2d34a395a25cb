"""The auditor: reconciles a part of the ledger with itself each minute. In every worker; one has the turn at a time.

A thread of its own: the sweeper and the heartbeat must not wait for it.
"""

import random
import threading

import structlog
from sqlalchemy import Engine

from moderation.errors import DatabaseRestored, LedgerUnavailable
from moderation.ledger.audit.turn import take_turn
from moderation.settings import AuditSettings

log = structlog.get_logger()


class Auditor:
    """A thread that takes a turn at the audit whenever one is due, until it is stopped."""

    def __init__(self, engine: Engine, settings: AuditSettings) -> None:
        self._engine = engine
        self._settings = settings
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="auditor", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """It only reads, and where it had come to is kept: a turn under way need not be waited for."""
        self._stopped.set()

    def audit(self) -> int | None:
        """One turn; how many breaches it found, each kind told with its ids. None where another worker had it."""
        count = take_turn(self._engine, self._settings)
        for one in count or ():
            log.error(
                "audit_breach", check=one.check.value, what=one.what, count=one.count, ids=list(one.ids)
            )
        return None if count is None else sum(one.count for one in count)

    def _run(self) -> None:
        # Workers started together would all ask in the same instant.
        while not self._stopped.wait(self._settings.every_s * random.uniform(0.5, 1.0)):  # noqa: S311 - no secret
            try:
                self.audit()
            except (LedgerUnavailable, DatabaseRestored) as exc:
                log.debug("audit_without_ledger", error=str(exc))  # the gate and the sweeper say it aloud
            except Exception:  # no item depends on it
                log.exception("audit_failed")

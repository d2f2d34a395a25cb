"""Plain submissions: the row for a message of a plain Celery client, which names a URI and a policy and no row."""

import threading
from uuid import UUID

from sqlalchemy import Engine

from moderation import metrics
from moderation.assessment import Submission
from moderation.errors import LedgerUnavailable
from moderation.ledger.policies import pin
from moderation.ledger.submit import new_id, submit
from worker.health.intake_gate import IntakeGate

_TRY_AGAIN_S = 0.5


class PlainSubmissions:
    """Submits what came in messages that are the only record of their images."""

    def __init__(self, engine: Engine, intake_gate: IntakeGate) -> None:
        self._engine = engine
        self._intake_gate = intake_gate
        self._closing = threading.Event()

    def admit(self, uri: str, policy: str, key: str) -> UUID:
        """The id of the row, which is made once for each key. Waits while the ledger is away, until `close`.

        Raises Misuse for a policy or URI that cannot be accepted; LedgerUnavailable after `close`.
        """
        submission = Submission(uri=uri, policy=policy, key=key)
        while True:
            try:
                pinned = pin(self._engine, [policy])
                tickets = submit(self._engine, [submission], pinned, [new_id()], rung=True)
                metrics.count_tickets(tickets)
                return tickets[0].id
            except LedgerUnavailable as exc:
                self._intake_gate.shut(exc)
                if self._closing.wait(_TRY_AGAIN_S):
                    raise

    def close(self) -> None:
        """Wait for the ledger no more."""
        self._closing.set()

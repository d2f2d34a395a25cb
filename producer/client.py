"""The client of an ingestion service: what `submit` returns is committed, whether or not Redis answers."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self, Unpack
from uuid import UUID

from sqlalchemy import Engine
from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_exponential_jitter

from moderation import metrics, tracing
from moderation.assessment import Submission, Ticket
from moderation.errors import BadSetting, LedgerUnavailable
from moderation.ledger.engine import open_ledger
from moderation.ledger.policies import pin
from moderation.ledger.submit import new_id, submit
from moderation.settings import QueueSettings, ServiceSettings
from producer.backpressure import Backpressure
from producer.chunks import in_chunks
from producer.pipelined import pipelined
from producer.ring_policy import RingPolicy
from producer.validation import SharedFields, SubmissionFields, validated, validated_under

# Repeating a submission is safe (its ids are ours), so a reply that was lost is asked for again.
_again = retry(
    retry=retry_if_exception_type(LedgerUnavailable),
    stop=stop_after_attempt(4),
    wait=wait_exponential_jitter(multiplier=0.1, max=2),
    reraise=True,
)


@dataclass(frozen=True, slots=True)
class Submitted:
    """What became of many submissions. cancelled: of the known, those that somebody cancelled; they stay so."""

    accepted: int = 0
    known: int = 0
    cancelled: int = 0

    def plus(self, tickets: Sequence[Ticket]) -> "Submitted":
        known = sum(ticket.known for ticket in tickets)
        cancelled = sum(ticket.cancelled for ticket in tickets)
        return Submitted(self.accepted + len(tickets) - known, self.known + known, self.cancelled + cancelled)


class Client:
    """Submits images. Safe to share between threads; use as a context manager or call `close`.

    database_url, redis_url: default to DATABASE_URL and REDIS_URL. Without Redis the sweeper rings instead.
    queue: how it rings, and what it does where the queue is full; VETLINE_QUEUE_* by default.
    Raises BadSetting when no database is named; LedgerUnavailable from submit when it cannot be reached.
    """

    def __init__(
        self,
        database_url: str | None = None,
        redis_url: str | None = None,
        *,
        queue: QueueSettings | None = None,
    ) -> None:
        services = ServiceSettings()
        if database_url is None and services.database_url is not None:
            database_url = services.database_url.get_secret_value()
        if redis_url is None and services.redis_url is not None:
            redis_url = services.redis_url.get_secret_value()
        if database_url is None:
            raise BadSetting("no database: set DATABASE_URL or pass database_url")
        self._engine: Engine = open_ledger(database_url)
        queue = queue or QueueSettings()
        self._ring_policy = RingPolicy(redis_url, queue)
        self._backpressure = Backpressure(self._engine, queue)
        tracing.start("producer")

    def submit(self, uri: str, policy: str, **about: Unpack[SubmissionFields]) -> Ticket:
        """Accept one image under one policy, committed when this returns.

        policy: "id" pins the revision current now; "id@revision" names one.
        about: key, priority, batch, metadata, tenant, reuse; see About.
        Raises InvalidSubmission, UnknownPolicy, QueueFull, LedgerUnavailable.
        """
        return self.submit_all([validated(uri=uri, policy=policy, **about)])[0]

    def submit_under(
        self, uri: str, policies: Sequence[str], **about: Unpack[SubmissionFields]
    ) -> list[Ticket]:
        """Accept one image under several policies: a ticket for each, in order, all committed when this returns.

        One worker fetches and decodes the image once for all of them. Otherwise as `submit`.
        """
        return self.submit_all(validated_under(policies, uri=uri, **about))

    def submit_many(
        self,
        images: Iterable[str | Submission],
        policy: str | Sequence[str] = "",
        *,
        on_tickets: Callable[[Sequence[Ticket]], None] = lambda _: None,
        **shared: Unpack[SharedFields],
    ) -> Submitted:
        """Accept any number of images in bounded memory: while some thousands are committed, the next is read.

        images: URIs that share policy, batch and the rest, or whole submissions. What was drawn from it may not be
            committed yet; on_tickets says what is.
        policy: one, or several that each image is judged under.
        on_tickets: called with the tickets of each chunk, in order, once they are committed.
        Raises InvalidSubmission at the first bad one: what came in chunks before it stays accepted.
        """

        def submissions() -> Iterator[Submission]:
            for image in images:
                if isinstance(image, Submission):
                    yield image
                else:
                    yield from validated_under(policy, uri=image, **shared)

        total = Submitted()
        for tickets in pipelined(self.submit_all, in_chunks(submissions())):
            total = total.plus(tickets)
            on_tickets(tickets)
        return total

    def submit_all(
        self, submissions: Sequence[Submission], *, ids: Sequence[UUID] | None = None
    ) -> list[Ticket]:
        """Accept these together, in one statement: all of them are committed when this returns, or none.

        ids: their assessments', where the caller wants to be able to repeat the call; new ones if left out.
        Raises UnknownPolicy, QueueFull, LedgerUnavailable.
        """
        if not submissions:
            return []
        _again(self._backpressure.admit)(len(submissions))
        pinned = _again(pin)(self._engine, {s.policy for s in submissions})
        ids = ids or [new_id() for _ in submissions]
        rung = self._ring_policy.promise(submissions)
        started_ns = time.time_ns()
        with metrics.timed(metrics.SUBMIT_SECONDS):
            tickets = _again(submit)(self._engine, submissions, pinned, ids, rung=rung)
        metrics.count_tickets(tickets)
        tracing.submitted(tickets, started_ns=started_ns)
        if rung:
            self._ring_policy.ring(submissions, tickets)
        return tickets

    def close(self) -> None:
        self._ring_policy.close()
        self._engine.dispose()
        tracing.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

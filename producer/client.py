"""The client of an ingestion service: what `submit` returns is committed, whether or not Redis answers."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from pydantic import ValidationError
from sqlalchemy import Engine
from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_exponential_jitter

from moderation import metrics, tracing
from moderation.assessment import Priority, Submission, Ticket
from moderation.errors import BadSetting, InvalidSubmission, LedgerUnavailable
from moderation.ledger.engine import open_ledger
from moderation.ledger.policies import pin
from moderation.ledger.submit import new_id, submit
from moderation.policy import parse_ref
from moderation.settings import QueueSettings, ServiceSettings
from producer.ringing import Ringing

CHUNK = 1000  # rows of one statement: 181,000 rows/s were measured there, and memory stays small

# Repeating a submission is safe (its ids are ours), so a reply that was lost is asked for again.
_again = retry(
    retry=retry_if_exception_type(LedgerUnavailable),
    stop=stop_after_attempt(4),
    wait=wait_exponential_jitter(multiplier=0.1, max=2),
    reraise=True,
)


@dataclass(frozen=True, slots=True)
class Submitted:
    """What became of many submissions."""

    accepted: int = 0
    known: int = 0

    def plus(self, tickets: Sequence[Ticket]) -> "Submitted":
        known = sum(ticket.known for ticket in tickets)
        return Submitted(self.accepted + len(tickets) - known, self.known + known)


class Client:
    """Submits images. Safe to share between threads; use as a context manager or call `close`.

    database_url, redis_url: default to DATABASE_URL and REDIS_URL. Without Redis the sweeper rings instead.
    Raises BadSetting when no database is named; LedgerUnavailable from submit when it cannot be reached.
    """

    def __init__(self, database_url: str | None = None, redis_url: str | None = None) -> None:
        services = ServiceSettings()
        if database_url is None and services.database_url is not None:
            database_url = services.database_url.get_secret_value()
        if redis_url is None and services.redis_url is not None:
            redis_url = services.redis_url.get_secret_value()
        if database_url is None:
            raise BadSetting("no database: set DATABASE_URL or pass database_url")
        self._engine: Engine = open_ledger(database_url)
        self._ringing = Ringing(redis_url, QueueSettings())
        tracing.start("producer")

    def submit(
        self,
        uri: str,
        policy: str,
        *,
        key: str | None = None,
        priority: str | Priority = Priority.NORMAL,
        batch: str | None = None,
        metadata: dict[str, Any] | None = None,
        reuse: bool = True,
    ) -> Ticket:
        """Accept one image under one policy, committed when this returns.

        policy: "id" pins the revision current now; "id@revision" names one.
        key: the same key under the same policy is the same assessment, however often and from wherever.
        reuse: whether a verdict about the same pixels under the same policy revision and model may answer for it.
        Raises InvalidSubmission, UnknownPolicy, LedgerUnavailable.
        """
        submission = self.check(
            uri=uri, policy=policy, key=key, priority=priority, batch=batch, metadata=metadata, reuse=reuse
        )
        return self._submit([submission])[0]

    def submit_under(
        self,
        uri: str,
        policies: Sequence[str],
        *,
        key: str | None = None,
        priority: str | Priority = Priority.NORMAL,
        batch: str | None = None,
        metadata: dict[str, Any] | None = None,
        reuse: bool = True,
    ) -> list[Ticket]:
        """Accept one image under several policies: a ticket for each, in order, all committed when this returns.

        One worker fetches and decodes the image once for all of them. Otherwise as `submit`.
        """
        fields = {"key": key, "priority": priority, "batch": batch, "metadata": metadata, "reuse": reuse}
        return self._submit(self.check_under(policies, uri=uri, **fields))

    def submit_many(
        self,
        uris: Iterable[str | Submission],
        policy: str | Sequence[str] = "",
        *,
        batch: str | None = None,
        priority: str | Priority = Priority.NORMAL,
        on_tickets: Callable[[Sequence[Ticket]], None] = lambda _: None,
    ) -> Submitted:
        """Accept any number of images in bounded memory; each chunk is committed before the next is read.

        uris: URIs that share policy, batch and priority, or whole submissions.
        policy: one, or several that each image is judged under.
        on_tickets: called with the tickets of each chunk, in order, once they are committed.
        Raises InvalidSubmission at the first bad one: what came in chunks before it stays accepted.
        """

        def submissions() -> Iterator[Submission]:
            for item in uris:
                if isinstance(item, Submission):
                    yield item
                else:
                    yield from self.check_under(policy, uri=item, batch=batch, priority=priority)

        total = Submitted()
        for chunk in _chunks(submissions()):
            tickets = self._submit(chunk)
            total = total.plus(tickets)
            on_tickets(tickets)
        return total

    @staticmethod
    def check(*, priority: str | Priority = Priority.NORMAL, **fields: Any) -> Submission:
        """A submission whose every field was checked. Raises InvalidSubmission naming the field."""
        try:
            named = Priority.named(priority) if isinstance(priority, str) else priority
            return Submission(priority=named, **fields)
        except KeyError:
            raise InvalidSubmission(f"priority must be high, normal or low, not {priority!r}") from None
        except ValidationError as exc:
            first = exc.errors(include_url=False, include_input=False)[0]
            field = ".".join(str(part) for part in first["loc"])
            raise InvalidSubmission(f"{field}: {first['msg'].removeprefix('Value error, ')}") from None

    @classmethod
    def check_under(cls, policies: Sequence[str], **fields: Any) -> list[Submission]:
        """Checked submissions of one image, one for each policy. Raises InvalidSubmission as `check` does."""
        if isinstance(policies, str):  # a text is a sequence of texts too, and never meant as one
            policies = [policies]
        check_policies(policies, keyed=fields.get("key") is not None)
        together = new_id() if len(policies) > 1 else None
        return [cls.check(policy=policy, submission_id=together, **fields) for policy in policies]

    def close(self) -> None:
        self._ringing.close()
        self._engine.dispose()
        tracing.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _submit(self, submissions: Sequence[Submission]) -> list[Ticket]:
        pinned = _again(pin)(self._engine, {s.policy for s in submissions})
        ids = [new_id() for _ in submissions]
        rung = self._ringing.promise(len(submissions))
        started_ns = time.time_ns()
        with metrics.timed(metrics.SUBMIT_SECONDS):
            tickets = _again(submit)(self._engine, submissions, pinned, ids, rung=rung)
        metrics.count_tickets(tickets)
        tracing.submitted(tickets, started_ns=started_ns)
        if rung:
            self._ringing.ring(submissions, tickets)
        return tickets


def check_policies(policies: Sequence[str], *, keyed: bool) -> None:
    """Raises InvalidSubmission unless one image can be submitted under these together; UnknownPolicy for no id.

    keyed: the submission has a key, of which there is one for each policy id, whatever the revision.
    """
    if len(policies) == 1:
        return
    if not policies:
        raise InvalidSubmission("policies: name at least one")
    names = [parse_ref(policy)[0] for policy in policies] if keyed else list(policies)
    if twice := next((name for name in names if names.count(name) > 1), None):
        why = ", and a key means one assessment for each id" if twice not in policies else ""
        raise InvalidSubmission(f"policies: {twice} stands twice{why}")


def _chunks(submissions: Iterator[Submission]) -> Iterator[list[Submission]]:
    """Of CHUNK submissions, or some more where the policies of one image would come apart."""
    chunk: list[Submission] = []
    for submission in submissions:
        if len(chunk) >= CHUNK and not _together(chunk[-1], submission):
            yield chunk
            chunk = []
        chunk.append(submission)
    if chunk:
        yield chunk


def _together(one: Submission, other: Submission) -> bool:
    return one.submission_id is not None and one.submission_id == other.submission_id

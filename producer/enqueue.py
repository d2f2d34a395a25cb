"""Enqueue sources: read, check, submit a chunk, note how far that is; go on there when it was interrupted."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    wait_exponential_jitter,
)

from moderation.assessment import Submission, Ticket
from moderation.errors import InvalidSubmission, QueueFull, Unavailable
from moderation.settings import QueueSettings
from producer.checkpoint import Checkpoint, Position
from producer.chunks import CHUNK
from producer.client import Client
from producer.rejects import Rejects
from producer.sources import Item, Reject, Source, SourceStep
from producer.validation import SharedFields, validated_under

_Step = tuple[int, SourceStep]  # with the position of its source

PATIENCE_S = 600  # a Postgres that is away for longer than ten minutes is somebody's work


@dataclass(frozen=True, slots=True)
class SubmitOptions:
    """What the images are submitted under. again: judge anew what is known, once for each run."""

    policies: Sequence[str]
    shared: SharedFields = field(default_factory=lambda: SharedFields())
    again: bool = False

    def submissions(self, item: Item, run: str) -> list[Submission]:
        """Checked, one for each policy. Raises InvalidSubmission."""
        fields = SharedFields(**self.shared)
        if item.metadata is not None:
            fields["metadata"] = item.metadata
        if item.priority is not None:
            fields["priority"] = item.priority
        if not self.again:
            return validated_under(self.policies, uri=item.uri, key=self._key(item), **fields)
        made = validated_under(self.policies, uri=item.uri, reuse=False, **fields)
        # A key of this run, so that going on doubles nothing; the ref in it, as two revisions of a policy may be asked.
        return [s.model_copy(update={"key": f"again:{run}/{s.policy}/{item.key[:300]}"}) for s in made]

    def _key(self, item: Item) -> str:
        return item.key if item.key_is_given else f"{self.shared.get('batch') or ''}/{item.key}"


@dataclass(frozen=True, slots=True)
class EnqueueCallbacks:
    """Who is told. progress: the place, and the share of all sources that was read, where that is known."""

    progress: Callable[[Position, float | None], None] = lambda *_: None
    tickets: Callable[[Sequence[Ticket]], None] = lambda _: None
    waiting: Callable[[str], None] = lambda _: None


class EnqueueRun:
    """One run over the sources. client: None only checks and counts."""

    def __init__(
        self,
        sources: Sequence[Source],
        wanted: SubmitOptions,
        client: Client | None,
        watching: EnqueueCallbacks,
    ) -> None:
        self._sources = sources
        self._wanted = wanted
        self._client = client
        self._watching = watching
        rows = min(CHUNK, QueueSettings().bound or CHUNK)  # more than the bound would never find room
        self._size = max(1, rows // len(wanted.policies))

    def run(self, place: Position, rejects: Rejects, checkpoint: Checkpoint | None) -> Position:
        """Everything behind `place`. Returns where it ended, with the counts of the whole run."""
        steps = self._steps(place)
        while chunk := list(islice(steps, self._size)):
            place = self._chunk(chunk, place, rejects)
            if checkpoint is not None:
                checkpoint.write(place)
            number, last = chunk[-1]
            self._watching.progress(place, self._done(number, last.done))
        return place

    def _steps(self, place: Position) -> Iterator[_Step]:
        """Of all sources, each with its source's position."""
        for number in range(place.source, len(self._sources)):
            after = place.cursor if number == place.source else None
            for step in self._sources[number].read(after):
                yield number, step

    def _chunk(self, steps: Sequence[_Step], place: Position, rejects: Rejects) -> Position:
        submissions: list[Submission] = []
        refused = 0
        for number, step in steps:
            try:
                submissions += self._checked(step.what, place.run)
            except _RejectedError as exc:
                refused += 1
                rejects.add(self._sources[number].name, step.line, exc.refusal)
        tickets = self._submitted(submissions)
        known = sum(ticket.known for ticket in tickets)
        accepted = (len(tickets) if self._client else len(submissions)) - known
        number, last = steps[-1]
        return place.moved(
            source=number,
            cursor=last.cursor,
            last_id=str(tickets[-1].id) if tickets else place.last_id,
            accepted=place.accepted + accepted,
            known=place.known + known,
            cancelled=place.cancelled + sum(ticket.cancelled for ticket in tickets),
            refused=place.refused + refused,
            refused_bytes=rejects.flush(),
        )

    def _checked(self, what: Item | Reject, run: str) -> list[Submission]:
        if isinstance(what, Reject):
            raise _RejectedError(what)
        try:
            return self._wanted.submissions(what, run)
        except InvalidSubmission as exc:
            raise _RejectedError(Reject(str(exc), what.uri)) from exc

    def _submitted(self, submissions: Sequence[Submission]) -> list[Ticket]:
        """Committed. Waits while the ledger is away: every submission has its key, so a repeat is harmless."""
        if self._client is None:
            return []
        patient = Retrying(
            retry=retry_if_exception_type(Unavailable),
            stop=_is_enough,
            wait=wait_exponential_jitter(initial=1, max=10),
            before_sleep=self._tell,
            reraise=True,
        )
        tickets = patient(self._client.submit_all, submissions)
        self._watching.tickets(tickets)
        return tickets

    def _tell(self, state: RetryCallState) -> None:
        if state.outcome is not None:
            self._watching.waiting(f"waiting: {state.outcome.exception()}")

    def _done(self, number: int, done: float | None) -> float | None:
        return None if done is None else (number + done) / len(self._sources)


def _is_enough(state: RetryCallState) -> bool:
    """A queue that is full empties as it is judged, and that may take all night."""
    full = state.outcome is not None and isinstance(state.outcome.exception(), QueueFull)
    return not full and (state.seconds_since_start or 0) > PATIENCE_S


class _RejectedError(Exception):
    def __init__(self, refusal: Reject) -> None:
        super().__init__(refusal.reason)
        self.refusal = refusal

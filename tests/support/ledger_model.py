"""What the ledger should hold, as simply as it can be said: the model that its state machine is held against."""

from dataclasses import dataclass, field

from moderation.assessment import Claim, Submission
from moderation.ledger.pauses import Scope

Target = tuple[Scope, str]


@dataclass
class Item:
    """What the ledger should hold of one assessment."""

    submission: Submission
    due: bool  # whether its ring is due; told apart only while it is queued
    state: str = "queued"
    attempt: int = 0
    charged: int = 0
    crashes: int = 0
    waits: bool = False  # not_before lies ahead
    lease_over: bool = False
    worker: str = ""
    outcomes: dict[int, tuple[str, str]] = field(default_factory=dict)  # by attempt: outcome and worker

    @property
    def open(self) -> bool:
        return self.state == "queued" and not self.waits

    @property
    def targets(self) -> set[Target]:
        """What a pause or a cap may name it by."""
        mine = self.submission
        named = {(Scope.BATCH, mine.batch), (Scope.TENANT, mine.tenant), (Scope.POLICY, mine.policy)}
        return {(scope, name) for scope, name in named if name} | {(Scope.EVERYTHING, "")}

    def end(self, outcome: str, state: str, worker: str) -> None:
        self.outcomes[self.attempt] = (outcome, worker)
        self.state = state
        if outcome in {"given_back", "crashed"}:
            self.charged -= 1

    def queue(self, *, delayed: bool) -> None:
        self.waits, self.due = delayed, not delayed


@dataclass(frozen=True)
class Held:
    """A claim and the worker that got it; kept for ever, as a worker that stood still would."""

    claim: Claim
    worker: str

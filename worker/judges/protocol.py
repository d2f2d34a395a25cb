"""What every judge is: it turns one view of an image and a policy revision into a judgement."""

from dataclasses import dataclass
from typing import Protocol

from intake.picture import View
from moderation.policy import PolicyRevision
from moderation.verdict import Basis, Judgement


@dataclass(frozen=True, slots=True)
class Runtime:
    """What a judge runs on, for people. state: a word or two; version, model: None while they are not known."""

    name: str
    state: str
    version: str | None = None
    model: str | None = None


class Judge(Protocol):
    """Called from many threads at once. Every wait inside it has its own deadline."""

    name: str
    needs_pixels: bool  # whether views must carry `rgb`

    def check(self) -> None:
        """Whether it could judge an item now. Raises RuntimeUnavailable, or Misuse if it never will."""

    def basis(self) -> Basis | None:
        """What its judgements rest on; None while that is not known (the runtime has not been asked yet)."""

    def runtime(self) -> Runtime:
        """What it runs on and how that is, from memory alone."""

    def judge(self, view: View, policy: PolicyRevision, *, timeout_s: float) -> Judgement:
        """Judge one view within timeout_s seconds of wall clock.

        Raises MalformedAnswer, RequestRefused, PolicyUnsupported (permanent), JudgeTimeout, RuntimeFault
        (transient), RuntimeUnavailable (the runtime is down). An error that ends a ladder carries the asks
        made so far as its attribute `asks`.
        """

    def close(self) -> None:
        """Let go of connections and models."""

"""What came of a row, and the words for it: the one place that writes and reads what Flower and the logs show of it."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from moderation.verdict import Rating


class OutcomeKind(StrEnum):
    """How a row left this worker, or why it never came in. The words are read by people and by log queries."""

    SAFE = "safe"
    UNSAFE = "unsafe"
    FAILED = "failed"
    LATER = "later"  # put off: tried again after a delay, and charged
    BACK = "back"  # given back: tried again uncharged
    LEASE_LOST = "lease_lost"
    LOST = "lost"  # by a defect of ours; the lease frees it
    ACCEPTED = "accepted"  # a plain client's message, whose row is made
    NOT_DUE = "not_due"
    CLOSING = "closing"
    LEDGER_UNAVAILABLE = "ledger_unavailable"


@dataclass(frozen=True, slots=True)
class Outcome:
    """code: the error's, for what failed, was put off or was given back."""

    kind: OutcomeKind
    code: str = ""

    def __str__(self) -> str:
        return f"{self.kind}:{self.code}" if self.code else str(self.kind)

    @property
    def is_failed(self) -> bool:
        return self.kind is OutcomeKind.FAILED

    @property
    def is_retried(self) -> bool:
        return self.kind in (OutcomeKind.LATER, OutcomeKind.BACK)


def rated(rating: Rating) -> Outcome:
    """The outcome of a verdict."""
    return Outcome(OutcomeKind.SAFE if rating is Rating.SAFE else OutcomeKind.UNSAFE)


class NotJudged(Exception):
    """Says to Celery, and so to Flower, that an item failed or waits. The ledger knows already.

    Made by `not_judged` alone. One argument, since Celery pickles it.
    """


_NOT_JUDGED = re.compile(r"NotJudged\('(.*) \(([0-9a-f-]{36})\)'\)")  # as repr writes it


def in_words(outcomes: Iterable[Outcome]) -> str:
    """As Flower shows a message's outcomes: in the order of its rows, between spaces."""
    return " ".join(map(str, outcomes))


def not_judged(assessment: object, outcomes: Iterable[Outcome]) -> NotJudged:
    """assessment: the id of the message's first row."""
    return NotJudged(f"{in_words(outcomes)} ({assessment})")


def judged(assessment: object, outcomes: Iterable[Outcome]) -> dict[str, str]:
    """The result of a task whose rows all have verdicts, or were not claimed."""
    return {"assessment": str(assessment), "outcome": in_words(outcomes)}


def read_not_judged(exception: str) -> tuple[str, str] | None:
    """The outcomes in words and the assessment's id, from the repr of a NotJudged; None for any other exception."""
    match = _NOT_JUDGED.search(exception)
    return (match[1], match[2]) if match else None

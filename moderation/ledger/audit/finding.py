"""What an audit found, and the allowance of time and rows that it works within."""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from enum import StrEnum

from sqlalchemy import Connection, Engine

from moderation.errors import LedgerUnavailable
from moderation.ledger.engine import transaction

# A slice that has begun may end, or nothing would ever be covered where one takes longer than a turn.
_GRACE_S = 10.0
_TIMED_OUT = "57014"  # Postgres' query_canceled


class AuditCheck(StrEnum):
    """What is compared. The value is stored, printed and graphed: never rename."""

    STATES = "states"
    ATTEMPTS = "attempts"
    CHARGES = "charges"
    VERDICTS = "verdicts"
    FEED = "feed"
    COUNTERS = "counters"
    DELIVERIES = "deliveries"


class OutOfTime(Exception):
    """A statement of the audit was cut off at its limit: what it would have compared is not covered."""


@dataclass(frozen=True, slots=True)
class AuditFinding:
    """One kind of breach: how many, and the first of them by id (or by what else names them)."""

    check: AuditCheck
    what: str
    count: int
    ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Allowance:
    """How much one slice may take.

    until: when no slice is to begin any more, by the monotonic clock; one that has begun ends soon after, or is cut off.
    rows: how many it reads, about. heavy: how many one count may read. ids: how many of a kind are named.
    checkpoint: whether places that were found whole may be noted as such, so that the next time begins there.
    """

    until: float
    rows: int = 5000
    heavy: int = 2**62
    ids: int = 20
    checkpoint: bool = False

    @property
    def is_over(self) -> bool:
        return time.monotonic() >= self.until

    def check(self) -> float:
        """For how many seconds a slice may still go on. Raises OutOfTime where it may not."""
        left_s = self.until + _GRACE_S - time.monotonic()
        if left_s <= 0:
            raise OutOfTime
        return left_s


@dataclass(frozen=True, slots=True)
class AuditSlice:
    """What one slice came to. place: where the next one begins; None where this was the last.

    rows: how many were compared. left_out: how many counts were left out, since they would have read too much.
    """

    place: str | None
    rows: int
    findings: list[AuditFinding] = field(default_factory=list)
    left_out: int = 0


class Findings:
    """Findings put together: one for each kind, with the first ids."""

    def __init__(self, *, ids: int) -> None:
        self._ids = ids
        self._kept: dict[tuple[AuditCheck, str], AuditFinding] = {}

    def add(self, findings: Iterable[AuditFinding]) -> None:
        for one in findings:
            before = self._kept.get((one.check, one.what), replace(one, count=0, ids=()))
            ids = (*before.ids, *one.ids)[: self._ids]
            self._kept[one.check, one.what] = replace(before, count=before.count + one.count, ids=ids)

    def note(self, check: AuditCheck, what: str, id_: object) -> None:
        self.add([AuditFinding(check, what, 1, (str(id_),))])

    def all(self) -> list[AuditFinding]:
        """In the order of the checks."""
        order = list(AuditCheck)
        return sorted(self._kept.values(), key=lambda one: (order.index(one.check), one.what))


@contextmanager
def snapshot(engine: Engine, allowance: Allowance) -> Iterator[Connection]:
    """Statements that see one state of the ledger. Raises OutOfTime where one takes longer than is allowed."""
    with (
        cut_off(),
        transaction(engine, patience_s=allowance.check(), isolation="REPEATABLE READ") as connection,
    ):
        yield connection


@contextmanager
def cut_off() -> Iterator[None]:
    """Turns a statement that was cut off at its limit into OutOfTime; Postgres is there."""
    try:
        yield
    except LedgerUnavailable as exc:
        if getattr(getattr(exc.__cause__, "orig", None), "sqlstate", None) == _TIMED_OUT:
            raise OutOfTime from exc
        raise

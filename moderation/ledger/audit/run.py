"""One audit, as far as it comes in its time: the parts take turns, a slice each."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Engine

from moderation.ledger.audit import assessments, counters, deliveries, feed
from moderation.ledger.audit.finding import Allowance, AuditFinding, AuditSlice, Findings, OutOfTime

Look = Callable[[Engine, str, Allowance], AuditSlice]

PARTS: dict[str, Look] = {
    "assessments": assessments.look,
    "feed": feed.look,
    "deliveries": deliveries.look,
    "counters": counters.look,
}
_FOREVER_S = 7 * 86_400.0  # no limit, though a statement still has one


@dataclass(slots=True)
class Coverage:
    """How far one part came. rows: compared. left_out: counts that would have read too much, or too long."""

    part: str
    place: str = ""
    rows: int = 0
    left_out: int = 0
    complete: bool = False
    took_s: float = 0.0


@dataclass(frozen=True, slots=True)
class AuditReport:
    """What an audit found, and what it looked at."""

    findings: list[AuditFinding]
    parts: list[Coverage]
    took_s: float

    @property
    def complete(self) -> bool:
        return all(part.complete for part in self.parts)


def audit(
    engine: Engine,
    *,
    limit_s: float | None = None,
    since: datetime | None = None,
    rows: int = 5000,
    ids: int = 20,
) -> AuditReport:
    """Reconcile the ledger with itself, in limit_s seconds and what the last slice takes: ten at most.

    since: only what was submitted from then on, and what is kept as a whole. rows: of a slice. ids: named of a kind.
    Raises LedgerUnavailable.
    """
    start = time.monotonic()
    allowance = Allowance(start + (_FOREVER_S if limit_s is None else limit_s), rows=rows, ids=ids)
    findings = Findings(ids=ids)
    parts = [Coverage(name, _first_place(name, since)) for name in PARTS]
    going = list(parts)
    while going and not allowance.is_over:
        going = [part for part in going if _goes_on(engine, part, allowance, findings)]
    return AuditReport(findings.all(), parts, time.monotonic() - start)


def _first_place(part: str, since: datetime | None) -> str:
    if since is None or part not in {"assessments", "feed"}:
        return ""
    return assessments.since(since)


def _goes_on(engine: Engine, part: Coverage, allowance: Allowance, findings: Findings) -> bool:
    """Look at one slice of a part; whether there is another."""
    if allowance.is_over:
        return False
    start = time.monotonic()
    try:
        looked = PARTS[part.part](engine, part.place, allowance)
    except OutOfTime:
        part.left_out += 1
        return False
    finally:
        part.took_s += time.monotonic() - start
    findings.add(looked.findings)
    part.rows += looked.rows
    part.left_out += looked.left_out
    part.complete = looked.place is None and not part.left_out
    part.place = looked.place or part.place
    return looked.place is not None

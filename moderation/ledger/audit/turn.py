"""Takes a turn at the audit: a few seconds each minute, in whichever worker comes first. Its place is kept between turns.

A part that has come to its end begins again, so a breach stays in the numbers until a whole round has passed without
it.
"""

import random
import time
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic_core import to_json
from sqlalchemy import Engine, Row, text

from moderation.ledger.audit.finding import (
    Allowance,
    AuditCheck,
    AuditFinding,
    AuditSlice,
    Findings,
    OutOfTime,
)
from moderation.ledger.audit.run import PARTS
from moderation.ledger.engine import autocommit
from moderation.settings import AuditSettings

# Whoever takes the places has them for a turn: a worker that died in it has moved none, and the next one repeats it.
_TAKE = text("""
    UPDATE audit_place SET taken_at = clock_timestamp() WHERE part IN (
        SELECT p.part FROM audit_place p
        WHERE p.part = ANY(:parts) AND p.taken_at < clock_timestamp() - make_interval(secs => :every_s)
        ORDER BY p.part FOR UPDATE SKIP LOCKED
    )
    RETURNING part, place, rows, found, taken_at
""")

_KEEP = text("""
    UPDATE audit_place SET
        place = :place, rows = CASE WHEN :ended THEN 0 ELSE :rows END,
        found = CASE WHEN :ended THEN '{}' ELSE CAST(:found AS jsonb) END,
        found_before = CASE WHEN :ended THEN CAST(:found AS jsonb) ELSE found_before END,
        completed_at = CASE WHEN :ended THEN now() ELSE completed_at END
    WHERE part = :part AND taken_at = :taken_at
""")

_PLACES = text("""
    SELECT part, rows, found, found_before, extract(epoch FROM taken_at)::float AS taken_at,
           extract(epoch FROM completed_at)::float AS completed_at
    FROM audit_place ORDER BY part
""")


@dataclass(slots=True)
class _Part:
    """One part in a turn. found: how many breaches of each check, in the round so far."""

    name: str
    place: str
    rows: int
    found: Counter[str]
    taken_at: datetime
    ended: bool = False

    def moved(self, looked: AuditSlice) -> None:
        self.rows += looked.rows
        self.found.update({one.check.value: one.count for one in looked.findings})
        self.place, self.ended = looked.place or "", looked.place is None


def take_turn(engine: Engine, settings: AuditSettings) -> list[AuditFinding] | None:
    """Audit for a few seconds, from where the last turn ended; what was found in it. None where it is not time yet.

    Raises LedgerUnavailable.
    """
    parts = _take(engine, settings)
    if not parts:
        return None
    findings = Findings(ids=settings.ids)
    until = time.monotonic() + settings.turn_s
    allowance = Allowance(
        until, rows=settings.rows, heavy=settings.heavy_rows, ids=settings.ids, checkpoint=True
    )
    going = parts
    while going and not allowance.is_over:
        for part in going:
            _look(engine, part, allowance, findings)
        going = [part for part in going if not part.ended]
    return findings.all()


def places(engine: Engine) -> list[dict[str, Any]]:
    """Each part: rows compared in this round, breaches by check in it and in the whole one before, and times (Unix)."""
    with autocommit(engine) as connection:
        return [dict(row) for row in connection.execute(_PLACES).mappings()]


def breach_counts(rows: list[dict[str, Any]]) -> dict[str, int]:
    """Breaches by check, of what `places` read: of the last whole round, or of this one where there are more by now."""
    counts = dict.fromkeys((check.value for check in AuditCheck), 0)
    for row in rows:
        for check in row["found"].keys() | row["found_before"].keys():
            counts[check] += max(row["found"].get(check, 0), row["found_before"].get(check, 0))
    return counts


def _take(engine: Engine, settings: AuditSettings) -> list[_Part]:
    # A little less than the pause, so that the worker that took the last one comes in time for the next.
    values = {"parts": list(PARTS), "every_s": 0.9 * settings.every_s}
    with autocommit(engine) as connection:
        parts = [_part(row) for row in connection.execute(_TAKE, values)]
    random.shuffle(parts)  # where a turn is over after one slice, each comes to its own
    return parts


def _look(engine: Engine, part: _Part, allowance: Allowance, findings: Findings) -> None:
    """One slice, and keep where it came to. What is cut off is looked at again in the next turn, with all its time."""
    if allowance.is_over:
        return
    try:
        looked = PARTS[part.name](engine, part.place, allowance)
    except OutOfTime:
        return
    findings.add(looked.findings)
    part.moved(looked)
    values = {
        "part": part.name,
        "place": part.place,
        "rows": part.rows,
        "found": to_json(part.found).decode(),
        "ended": part.ended,
        "taken_at": part.taken_at,
    }
    with autocommit(engine) as connection:
        connection.execute(_KEEP, values)


def _part(row: Row[Any]) -> _Part:
    return _Part(row.part, row.place, row.rows, Counter(row.found), row.taken_at)

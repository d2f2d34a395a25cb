"""Audits that the feed gives out every verdict: found by primary key, then looked for with the feed's own reader, in order.

The reader pages from just before the first verdict of a slice to just after its last. What an open transaction holds
back is no breach: it is looked for in the next round.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Engine, text

from moderation.cursor import Cursor
from moderation.errors import InvalidCursor
from moderation.ledger.audit.finding import Allowance, AuditCheck, AuditSlice, Findings, snapshot
from moderation.ledger.feed import EVERYTHING, Filter, Page, end, read

_PAGE = 500
# Of the filters in use, a sample: two that one verdict of the slice passes, a few pages with each.
_FILTERS, _PAGES_FILTERED = 2, 2
# A page in which nothing of the slice stands costs as much as one that is full: after two of them, go to the next.
_EMPTY_PAGES = 2

_BY_KEY = text("""
    SELECT v.assessment_id AS id, v.epoch, v.xid::text AS verdict_xid, v.seq, v.rating, v.category,
           r.policy, r.revision, a.batch
    FROM verdict v LEFT JOIN assessment a ON a.id = v.assessment_id
    LEFT JOIN policy_revision r ON r.id = v.policy_revision_id
    WHERE v.assessment_id > :after AND a.purpose IS NULL ORDER BY v.assessment_id LIMIT :rows
""")

_MISSED = "a verdict that the feed leaves out"
_MISPLACED = "a verdict that the feed gives out at another place"
_DISORDERED = "a verdict that the feed gives out of order, or twice"


@dataclass(frozen=True, slots=True)
class _Judged:
    """A verdict as the table has it."""

    id: UUID
    place: Cursor
    rating: str
    category: str
    policy: str | None
    revision: int | None
    batch: str | None

    @property
    def before(self) -> Cursor:
        """The last place before its own."""
        return Cursor(self.place.epoch, self.place.xid, self.place.seq - 1)

    def passes(self, wanted: Filter) -> bool:
        return (
            (wanted.policy in (None, self.policy, f"{self.policy}@{self.revision}"))
            and wanted.rating in (None, self.rating)
            and wanted.category in (None, self.category, self.category.partition(":")[0])
            and wanted.batch in (None, self.batch)
        )

    def filters(self) -> Iterator[Filter]:
        """One of each kind that this verdict passes: two at least."""
        yield Filter(rating=self.rating)
        yield Filter(category=self.category.partition(":")[0])
        if self.policy is not None:
            yield Filter(policy=self.policy)
            yield Filter(policy=f"{self.policy}@{self.revision}", rating=self.rating)
        if self.batch is not None:
            yield Filter(batch=self.batch)


def look(engine: Engine, place: str, allowance: Allowance) -> AuditSlice:
    """The next verdicts by id. place: the last one that was looked for; "" for none. Raises OutOfTime."""
    with snapshot(engine, allowance) as connection:
        values = {"after": UUID(place) if place else UUID(int=0), "rows": allowance.rows}
        rows = [_judged(dict(row)) for row in connection.execute(_BY_KEY, values).mappings()]
    findings = Findings(ids=allowance.ids)
    if rows:
        in_order = sorted(rows, key=lambda row: row.place)
        _compare(engine, in_order, EVERYTHING, findings, allowance)
        chosen = list(random.choice(rows).filters())  # noqa: S311 - no secret
        for wanted in random.sample(chosen, _FILTERS):
            passing = [row for row in in_order if row.passes(wanted)]
            _compare(engine, passing, wanted, findings, allowance, pages=_PAGES_FILTERED)
    return AuditSlice(str(rows[-1].id) if len(rows) == allowance.rows else None, len(rows), findings.all())


def _compare(
    engine: Engine,
    expected: Sequence[_Judged],
    wanted: Filter,
    findings: Findings,
    allowance: Allowance,
    *,
    pages: int | None = None,
) -> None:
    """Read on from each that was not come to yet, until all were. expected: by place. pages: at most so many."""
    settled = end(engine)  # all below can be read from now on
    next_ = empty = 0
    at: Cursor | None = None
    while next_ < len(expected) and pages != 0:
        allowance.check()
        if at is None or empty >= _EMPTY_PAGES:
            at, empty = expected[next_].before, 0
        try:
            page = read(engine, at, wanted, limit=_PAGE)
        except InvalidCursor:  # a place that the feed has not come to, though a verdict stands there
            findings.note(AuditCheck.FEED, _MISSED, f"{expected[next_].id}{_filter_text(wanted)}")
            next_, at = next_ + 1, None
            continue
        upto = next_
        while upto < len(expected) and expected[upto].place <= page.upto:
            upto += 1
        _compare_page(page, at, expected[next_:upto], wanted, findings)
        empty = 0 if upto > next_ else empty + 1
        if page.done or page.upto <= at:  # what is left waits for an open transaction, or should have come
            for row in expected[upto:]:
                if row.place < settled or row.place.epoch > settled.epoch:
                    findings.note(AuditCheck.FEED, _MISSED, f"{row.id}{_filter_text(wanted)}")
            return
        next_, at = upto, page.upto
        pages = None if pages is None else pages - 1


def _compare_page(
    page: Page, after: Cursor, expected: Sequence[_Judged], wanted: Filter, findings: Findings
) -> None:
    """expected: those of the slice that stand in what this page covers."""
    cursors = {one.assessment_id: one.cursor for one in page.verdicts}
    asked = _filter_text(wanted)
    for row in expected:
        if row.id not in cursors:
            findings.note(AuditCheck.FEED, _MISSED, f"{row.id}{asked}")
        elif cursors[row.id] != row.place:
            findings.note(AuditCheck.FEED, _MISPLACED, f"{row.id}{asked}")
    last = after
    for one in page.verdicts:
        if not last < one.cursor <= page.upto:
            findings.note(AuditCheck.FEED, _DISORDERED, f"{one.assessment_id}{asked}")
        last = one.cursor


def _filter_text(wanted: Filter) -> str:
    return "".join(f" ({name} {value})" for name, value in wanted.criteria().items())


def _judged(row: dict[str, Any]) -> _Judged:
    place = Cursor(row.pop("epoch"), int(row.pop("verdict_xid")), row.pop("seq"))
    return _Judged(place=place, **row)

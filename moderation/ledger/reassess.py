"""Reassess: submits what was judged under one revision of a policy again under another, as new assessments."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Engine, text

from moderation.assessment import Priority
from moderation.errors import InvalidSubmission
from moderation.ledger.engine import autocommit, transaction
from moderation.ledger.policies import pin
from moderation.ledger.registry import find
from moderation.ledger.submit import new_id
from moderation.redaction import MARK

REPORT_S = 600.0  # one statement over every verdict of a policy; 100 million take minutes
_PAGE = 1000  # rows of one statement, as in submit

_CHOSEN = """
    v.policy_revision_id = :before
    AND NOT EXISTS (SELECT FROM assessment p WHERE p.id = v.assessment_id AND p.purpose IS NOT NULL)
    AND (CAST(:rating AS text) IS NULL OR v.rating = :rating)
    AND (CAST(:category AS text) IS NULL OR split_part(v.category, ':', 1) = :category)
"""

_COUNT = text(f"SELECT count(*) FROM verdict v WHERE {_CHOSEN}")

_NEXT = text(f"""
    SELECT v.assessment_id FROM verdict v
    WHERE {_CHOSEN} AND (CAST(:last AS uuid) IS NULL OR v.assessment_id > :last)
    ORDER BY v.assessment_id LIMIT :limit
""")

# In the order of a digest: drawn as if by lot, the same each time, and a larger sample holds the smaller.
_SAMPLE = text(f"""
    SELECT v.assessment_id FROM verdict v WHERE {_CHOSEN} ORDER BY md5(v.assessment_id::text) LIMIT :limit
""")

_AGAIN = text("""
    WITH old AS (
        SELECT given.new_id, a.id, a.uri, a.policy, a.metadata, a.tenant, position(:mark IN a.uri) > 0 AS gone
        FROM unnest(CAST(:old_ids AS uuid[]), CAST(:new_ids AS uuid[])) AS given (old_id, new_id)
        JOIN assessment a ON a.id = given.old_id
    ), queued AS (
        INSERT INTO assessment (id, uri, policy, policy_revision_id, key, batch, priority, metadata, tenant, ring_at,
                                reassesses)
        SELECT new_id, uri, policy, :after, 'reassess:' || id || ':' || CAST(:revision AS integer), :batch,
               :priority, metadata, tenant, now(), id
        FROM old WHERE NOT gone
        ON CONFLICT DO NOTHING
        RETURNING id
    )
    SELECT (SELECT count(*) FROM queued) AS queued, (SELECT count(*) FROM old WHERE gone) AS gone
""")


@dataclass(frozen=True, slots=True)
class RevisionChange:
    """From one revision of a policy to another. before, after: their ids in the ledger."""

    policy: str
    from_revision: int
    to_revision: int
    before: int
    after: int

    @property
    def refs(self) -> tuple[str, str]:
        return f"{self.policy}@{self.from_revision}", f"{self.policy}@{self.to_revision}"


@dataclass(frozen=True, slots=True)
class ReassessFilter:
    """Which verdicts under the earlier revision are meant. None leaves the choice open.

    rating: Safe or Unsafe. category: its id, such as O4. sample: at most so many, drawn as if by lot.
    """

    rating: str | None = None
    category: str | None = None
    sample: int | None = None


@dataclass(frozen=True, slots=True)
class Reassessed:
    """What became of verdicts that were to be judged again.

    queued: new assessments. known: an earlier run had queued them. gone: their URI held a secret or the image
    itself, and was redacted when they ended.
    """

    queued: int = 0
    known: int = 0
    gone: int = 0

    @property
    def seen(self) -> int:
        return self.queued + self.known + self.gone

    def __add__(self, other: "Reassessed") -> "Reassessed":
        return Reassessed(self.queued + other.queued, self.known + other.known, self.gone + other.gone)


def revision_change(engine: Engine, policy: str, *, from_revision: int, to_revision: int) -> RevisionChange:
    """The change, with both revisions found. Raises UnknownPolicy, and InvalidSubmission where they are one."""
    if from_revision == to_revision:
        raise InvalidSubmission(f"--from and --to are both revision {to_revision}")
    before = find(engine, f"{policy}@{from_revision}")
    after = find(engine, f"{policy}@{to_revision}")
    return RevisionChange(policy, from_revision, to_revision, before.id, after.id)


def count_chosen(engine: Engine, change: RevisionChange, choice: ReassessFilter) -> int:
    """How many verdicts the choice means now."""
    with transaction(engine, patience_s=REPORT_S) as connection:
        count = int(connection.execute(_COUNT, _values(change, choice)).scalar_one())
    return count if choice.sample is None else min(count, choice.sample)


def reassess(
    engine: Engine, change: RevisionChange, choice: ReassessFilter, *, batch: str
) -> Iterator[Reassessed]:
    """Queue a new assessment, at low priority, for each chosen verdict; tells of each page once it is committed.

    Safe to repeat and to break off: a verdict is judged again once for each revision, however often this runs.
    Raises UnknownPolicy where the later revision is retired.
    """
    pin(engine, [change.refs[1]])
    for ids in _pages(engine, change, choice):
        yield _again(engine, change, ids, batch)


def _pages(engine: Engine, change: RevisionChange, choice: ReassessFilter) -> Iterator[Sequence[UUID]]:
    values = _values(change, choice)
    if choice.sample is not None:
        with transaction(engine, patience_s=REPORT_S) as connection:
            drawn = connection.execute(_SAMPLE, values | {"limit": choice.sample}).scalars().all()
        yield from (drawn[start : start + _PAGE] for start in range(0, len(drawn), _PAGE))
        return
    last: UUID | None = None
    while page := _next(engine, values | {"last": last, "limit": _PAGE}):
        yield page
        last = page[-1]


def _next(engine: Engine, values: dict[str, Any]) -> Sequence[UUID]:
    with transaction(engine, patience_s=REPORT_S) as connection:
        return connection.execute(_NEXT, values).scalars().all()


def _again(engine: Engine, change: RevisionChange, ids: Sequence[UUID], batch: str) -> Reassessed:
    values = {
        "old_ids": list(ids),
        "new_ids": [new_id() for _ in ids],
        "after": change.after,
        "revision": change.to_revision,
        "batch": batch,
        "priority": int(Priority.LOW),
        "mark": MARK,
    }
    with autocommit(engine) as connection:
        row = connection.execute(_AGAIN, values).one()
    return Reassessed(row.queued, len(ids) - row.queued - row.gone, row.gone)


def _values(change: RevisionChange, choice: ReassessFilter) -> dict[str, Any]:
    return {"before": change.before, "rating": choice.rating, "category": choice.category}

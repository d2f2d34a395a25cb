"""Computes a report's figures. What has no verdict is counted by its state and is never Safe."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from sqlalchemy import Connection

from moderation.ledger import export
from moderation.ledger.export import ExportFilter

# LlavaGuard's authors saw 1.5 % of ImageNet removed in all, and up to 55 % of single classes ("syringe", "missile").
# A class that loses a fifth is far outside of what filtering is expected to do.
WARN_SHARE = 0.2
MOST_GROUPS = 1000  # listed, those that lose most first; all are counted
MOST_CATEGORIES = 200


class Counts(BaseModel):
    """Assessments: each is in exactly one of safe, unsafe, queued, running, failed and cancelled."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    total: int
    safe: int
    unsafe: int
    needs_review: int  # of those with a verdict
    queued: int
    running: int
    failed: int
    cancelled: int

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        if self.total != self.safe + self.unsafe + self.without_verdict:
            raise ValueError("an assessment is in no state or in two: the ledger is not to be trusted")
        return self

    @property
    def without_verdict(self) -> int:
        return self.queued + self.running + self.failed + self.cancelled

    @property
    def open(self) -> int:
        """How many may still get a verdict by themselves."""
        return self.queued + self.running


class GroupCounts(Counts):
    """A folder, a label or a batch. name: None where the assessments name none.

    share: of what was judged, how much is Unsafe. emptied: nothing of it is Safe, and nothing is being judged.
    """

    name: str | None
    share: float
    emptied: bool


class Grouping(BaseModel):
    """The groups that lose most, and how many there are in all."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    by: str
    groups: int
    emptied: int
    losing: int  # emptied, or losing more than warn_share
    shown: tuple[GroupCounts, ...]


class CategoryCount(BaseModel):
    """How many verdicts of a rating name a category."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    rating: str
    n: int


class Report(BaseModel):
    """report.json. chosen: the filters that narrow it, as given; warn_share: of a group, 0 to 1."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    made_at: datetime
    chosen: dict[str, Any]
    warn_share: float
    counts: Counts
    without_verdict: int
    categories: tuple[CategoryCount, ...]
    batches: Grouping
    grouping: Grouping | None
    warnings: tuple[str, ...] = Field(description="what to look at before anything is deleted")


def make_report(
    connection: Connection,
    choice: ExportFilter,
    *,
    group_by: str | None = None,
    warn_share: float = WARN_SHARE,
) -> Report:
    """Count what was chosen. Rating, category and score do not narrow a report: shares need what is left as well.

    group_by: "folder" or "metadata:KEY".
    """
    names = [
        name for name in ("since", "until", "policy", "revision", "batch", "current") if name in choice.values
    ]
    counts = Counts(**export.totals(connection, choice))
    batches = _grouping(connection, choice, "batch", warn_share)
    grouping = _grouping(connection, choice, group_by, warn_share) if group_by else None
    return Report(
        made_at=datetime.now(UTC),
        chosen={name: choice.values[name] for name in names},
        warn_share=warn_share,
        counts=counts,
        without_verdict=counts.without_verdict,
        categories=tuple(
            CategoryCount(**row) for row in export.categories(connection, choice, most=MOST_CATEGORIES)
        ),
        batches=batches,
        grouping=grouping,
        warnings=tuple(_warnings(counts, [g for g in (grouping, batches) if g], warn_share)),
    )


def _grouping(connection: Connection, choice: ExportFilter, by: str, warn_share: float) -> Grouping:
    rows = export.groups(connection, choice, by, share=warn_share, most=MOST_GROUPS)
    first = rows[0] if rows else {"groups": 0, "emptied_groups": 0, "losing_groups": 0}
    return Grouping(
        by=by,
        groups=first["groups"],
        emptied=first["emptied_groups"],
        losing=first["losing_groups"],
        shown=tuple(GroupCounts(**row) for row in rows),
    )


def _warnings(counts: Counts, groupings: list[Grouping], warn_share: float) -> Iterator[str]:
    if counts.without_verdict:
        yield (
            f"{counts.without_verdict} of {counts.total} have no verdict (queued {counts.queued}, running "
            f"{counts.running}, failed {counts.failed}, cancelled {counts.cancelled}): they are not Safe"
        )
    for grouping in groupings:
        if grouping.losing > len(grouping.shown):
            yield f"by {grouping.by}: only the first {len(grouping.shown)} of {grouping.losing} are named"
        for group in grouping.shown:
            if group.emptied:
                yield f"{_called(grouping, group)} is emptied: of {group.total}, {_lost(group)}"
            elif group.share > warn_share:
                yield f"{_called(grouping, group)} loses {group.share:.0%} of what was judged: {_lost(group)}"


def _called(grouping: Grouping, group: GroupCounts) -> str:
    kind = grouping.by.removeprefix("metadata:")
    return f"{kind} {group.name!r}" if group.name is not None else f"what has no {kind}"


def _lost(group: GroupCounts) -> str:
    parts = {
        "Unsafe": group.unsafe,
        "failed": group.failed,
        "cancelled": group.cancelled,
        "open": group.open,
    }
    return ", ".join(f"{n} {name}" for name, n in parts.items() if n)

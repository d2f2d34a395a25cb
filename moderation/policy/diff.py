"""What changed from one policy revision to another, for programs and for people."""

from collections import Counter
from collections.abc import Iterator

from pydantic import BaseModel, ConfigDict

from moderation.policy.category import Category
from moderation.policy.revision import PolicyRevision


class ValueChange(BaseModel):
    """A text or state before and after."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    before: str
    after: str


class BulletsChange(BaseModel):
    """What came and went under one title; `reordered` where the same bullets stand in another order."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    reordered: bool = False


class CategoryChange(BaseModel):
    """What changed within a category of the same number and name. A part that stayed is None."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    category: str  # full name
    state: ValueChange | None
    should_not: BulletsChange | None
    can: BulletsChange | None


class PolicyDiff(BaseModel):
    """From `before` to `after`, both named as id@revision. A part that stayed is None or empty."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    before: str
    after: str
    same_prompt: bool  # the model reads the same bytes: verdicts of one hold for the other
    title: ValueChange | None
    note: ValueChange | None
    dsa: bool = False  # whether the names in statements of reasons changed
    added: tuple[str, ...]  # full names of categories
    removed: tuple[str, ...]
    changed: tuple[CategoryChange, ...]

    @property
    def lines(self) -> tuple[str, ...]:
        """The diff for a person, one line for each thing that changed."""
        return tuple(_lines(self))


def describe_diff(before: PolicyRevision, after: PolicyRevision) -> PolicyDiff:
    """Categories are the same where number and name are: the model answers with both."""
    old = {c.full_name: c for c in before.categories}
    new = {c.full_name: c for c in after.categories}
    changes = (_category(old[name], new[name]) for name in old if name in new)
    return PolicyDiff(
        before=before.ref,
        after=after.ref,
        same_prompt=before.prompt == after.prompt,
        title=_change(before.title, after.title),
        note=_change(before.note, after.note),
        dsa=before.dsa != after.dsa,
        added=tuple(name for name in new if name not in old),
        removed=tuple(name for name in old if name not in new),
        changed=tuple(change for change in changes if change),
    )


def _change(before: str, after: str) -> ValueChange | None:
    return None if before == after else ValueChange(before=before, after=after)


def _category(before: Category, after: Category) -> CategoryChange | None:
    if before == after:
        return None
    return CategoryChange(
        category=after.full_name,
        state=_change(before.state.value, after.state.value),
        should_not=_bullets(before.should_not, after.should_not),
        can=_bullets(before.can, after.can),
    )


def _bullets(before: tuple[str, ...], after: tuple[str, ...]) -> BulletsChange | None:
    if before == after:
        return None
    added, removed = Counter(after) - Counter(before), Counter(before) - Counter(after)
    return BulletsChange(
        added=tuple(added.elements()),
        removed=tuple(removed.elements()),
        reordered=not added and not removed,
    )


def _lines(diff: PolicyDiff) -> Iterator[str]:
    yield f"{diff.before} -> {diff.after}"
    if diff.title:
        yield f"title: {diff.title.before!r} -> {diff.title.after!r}"
    if diff.note:
        yield "note: changed"
    if diff.dsa:
        yield "dsa: changed"
    yield from (f"- category {name}" for name in diff.removed)
    yield from (f"+ category {name}" for name in diff.added)
    for change in diff.changed:
        yield from _category_lines(change)
    if diff.same_prompt:
        yield "the model reads the same text"


def _category_lines(change: CategoryChange) -> Iterator[str]:
    states = f" {change.state.before} -> {change.state.after}" if change.state else ""
    yield f"{change.category}:{states}"
    for title, bullets in (("should not", change.should_not), ("can", change.can)):
        if bullets is None:
            continue
        yield from (f"  - {title}: {text}" for text in bullets.removed)
        yield from (f"  + {title}: {text}" for text in bullets.added)
        if bullets.reordered:
            yield f"  {title}: another order"

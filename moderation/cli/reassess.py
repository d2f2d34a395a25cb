"""`vetline reassess` and `vetline policy impact`: judge again when a policy changes, and see what that changed."""

from collections import Counter
from typing import Annotated, Any

import typer

from moderation.cli.open_ledger import opened_ledger
from moderation.cli.options import Json
from moderation.cli.output import print_json, print_table, progress_bar, say, talk
from moderation.errors import InvalidSubmission
from moderation.exit_codes import SOME_FAILED
from moderation.ledger import impact as ledger
from moderation.ledger.impact import Impact
from moderation.ledger.reassess import (
    Reassessed,
    ReassessFilter,
    RevisionChange,
    count_chosen,
    revision_change,
)
from moderation.ledger.reassess import reassess as judge_again
from moderation.policy.category import CATEGORY_ID
from moderation.redaction import redact_uri
from moderation.verdict import Rating

commands = typer.Typer()

From = Annotated[int, typer.Option("--from", min=1, help="The revision that the verdicts stand under.")]
To = Annotated[int, typer.Option("--to", min=1, help="The revision to judge them under.")]
_FLIPS = {
    "id": "id",
    "uri": "image",
    "rating_before": "was",
    "category_before": "for",
    "rating_after": "is",
    "category_after": "for",
    "rationale": "rationale",
}


@commands.command()
def reassess(
    policy: Annotated[str, typer.Option(help="The policy's id.")],
    from_: From,
    to: To,
    only: Annotated[
        str | None, typer.Option(help="unsafe, safe, or a category such as O4, as they were judged before.")
    ] = None,
    sample: Annotated[int | None, typer.Option(min=1, help="At most so many, drawn by lot.")] = None,
    batch: Annotated[str | None, typer.Option(help="A name to find the new assessments by.")] = None,
    as_json: Json = False,
) -> None:
    """Judge again under another revision of a policy.

    What has a verdict under the one revision is queued under the other, at low priority. Run it again at any time:
    what it queued before is not queued twice.
    """
    choice = _choice(only, sample)
    name = batch or f"reassess-{policy}-{from_}-{to}"
    total = Reassessed()
    with opened_ledger() as engine, progress_bar() as bar:
        change = revision_change(engine, policy, from_revision=from_, to_revision=to)
        task = bar.add_task("reassess", total=count_chosen(engine, change, choice))
        for page in judge_again(engine, change, choice, batch=name):
            total += page
            bar.advance(task, page.seen)
    _report(change, total, name, as_json)


def impact(
    policy: Annotated[str, typer.Argument(metavar="ID", help="The policy's id.")],
    from_: From,
    to: To,
    limit: Annotated[int, typer.Option(min=0, help="List at most so many flipped items.")] = 100,
    as_json: Json = False,
) -> None:
    """Show what `vetline reassess` changed, by category.

    Counts Safe to Unsafe and Unsafe to Safe, and lists the items that flipped.
    """
    with opened_ledger() as engine:
        change = revision_change(engine, policy, from_revision=from_, to_revision=to)
        effect = ledger.impact(engine, change, limit=limit)
    items = [item | {"uri": redact_uri(item["uri"])} for item in effect.items]
    if as_json:
        print_json(_as_json(change, effect, items))
        return
    for line in _lines(change, effect):
        say(line)
    print_table(items, _FLIPS, style=lambda row: "red" if row["rating_after"] == Rating.UNSAFE else None)
    if effect.flips > len(items):
        talk(f"{effect.flips - len(items)} more flipped; --limit lists more")


def _choice(only: str | None, sample: int | None) -> ReassessFilter:
    if only is None:
        return ReassessFilter(sample=sample)
    if only.capitalize() in set(Rating):
        return ReassessFilter(rating=only.capitalize(), sample=sample)
    if CATEGORY_ID.fullmatch(only.upper()):
        return ReassessFilter(category=only.upper(), sample=sample)
    raise InvalidSubmission(f"--only takes unsafe, safe, or a category such as O4, not {only!r}")


def _report(change: RevisionChange, total: Reassessed, batch: str, as_json: bool) -> None:
    before, after = change.refs
    counts = {"queued": total.queued, "known": total.known, "gone": total.gone}
    if as_json:
        print_json({"from": before, "to": after, "batch": batch, **counts})
    else:
        talk(f"{before} -> {after}: queued {total.queued}, known {total.known}, batch {batch}")
    if total.gone:
        talk(
            f"{total.gone} cannot be judged again: their URI held a secret or the image itself, and is redacted"
        )
        raise typer.Exit(SOME_FAILED)


def _as_json(change: RevisionChange, effect: Impact, items: list[dict[str, Any]]) -> dict[str, Any]:
    before, after = change.refs
    return {
        "from": before,
        "to": after,
        "verdicts": effect.verdicts,
        "reassessed": effect.reassessed,
        "judged": effect.judged,
        "safe_to_unsafe": {
            "count": effect.to_unsafe.total(),
            "categories": _most_first(effect.to_unsafe),
        },
        "unsafe_to_safe": {"count": effect.to_safe.total(), "categories": _most_first(effect.to_safe)},
        "still_safe": effect.still_safe,
        "still_unsafe": effect.still_unsafe,
        "still_unsafe_other_category": effect.other_category,
        "open": effect.open,
        "failed": _most_first(effect.failed),
        "cancelled": effect.cancelled,
        "image_changed": effect.image_changed,
        "items": items,
        "items_left_out": effect.flips - len(items),
    }


def _lines(change: RevisionChange, effect: Impact) -> list[str]:
    before, after = change.refs
    lines = [f"{before} -> {after}: {effect.judged} of {effect.verdicts} verdicts judged again"]
    lines += _by_category("Safe -> Unsafe", effect.to_unsafe)
    lines += _by_category("Unsafe -> Safe", effect.to_safe)
    lines.append(
        f"unchanged: Safe {effect.still_safe}, "
        f"Unsafe {effect.still_unsafe} ({effect.other_category} for another category)"
    )
    codes = ", ".join(f"{code} {n}" for code, n in _most_first(effect.failed).items())
    failed = f"failed {effect.failed.total()}" + (f" ({codes})" if codes else "")
    lines.append(f"no new verdict: open {effect.open}, {failed}, cancelled {effect.cancelled}")
    if effect.image_changed:
        lines.append(
            f"{effect.image_changed} images had other bytes than before: their flips may not be the policy's"
        )
    return lines


def _by_category(flip: str, categories: Counter[str]) -> list[str]:
    return [
        f"{flip}: {categories.total()}",
        *(f"  {name}: {n}" for name, n in _most_first(categories).items()),
    ]


def _most_first(counts: Counter[str]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))

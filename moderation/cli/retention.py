"""`vetline retention` clears what is old; `vetline hold` says what must stay."""

import time
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from typing import Annotated
from uuid import UUID

import typer

from moderation.cli.open_ledger import opened_ledger
from moderation.cli.options import Json
from moderation.cli.output import print_json, print_table, progress_counter, talk
from moderation.cli.signature import login_name, plain_words
from moderation.errors import InvalidSubmission
from moderation.ledger.legal_holds import HoldTarget, add_hold, holds, remove_hold
from moderation.ledger.retention import ClearResult, clear_raw, clear_uris
from moderation.settings import RetentionSettings

commands = typer.Typer()
_hold = typer.Typer(help="Keep what retention would clear: legal holds.", no_args_is_help=True)
commands.add_typer(_hold, name="hold")

Id = Annotated[str | None, typer.Argument(metavar="ID", help="One assessment.")]
OfBatch = Annotated[
    str | None, typer.Option("--batch", help="All of a batch, also what comes into it later.")
]
By = Annotated[str | None, typer.Option(help="Who says so; your login name if left out.")]
Days = Annotated[int | None, typer.Option(min=1, help="Days, in place of the setting.")]
_HEADINGS = {
    "month": "month",
    ClearResult.VERDICTS: "raw outputs",
    ClearResult.ATTEMPTS: "attempts' raw answers",
    ClearResult.URIS: "URIs",
    ClearResult.HELD: "held",
}


@commands.command()
def retention(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count what would be cleared.")] = False,
    raw_days: Days = None,
    uri_days: Days = None,
    as_json: Json = False,
) -> None:
    """Clear raw outputs and URIs of what ended long ago.

    Ratings, rationales and digests stay. It may be interrupted and run again at any time. Counts are by the month
    in which the assessments ended (UTC).
    """
    settings = RetentionSettings()
    now = datetime.now(UTC)
    raw = now - timedelta(days=raw_days or settings.raw_days)
    uris = now - timedelta(days=uri_days or settings.uri_days)
    months: dict[date, Counter[str]] = {}
    try:
        with opened_ledger() as engine, progress_counter("cleared") as more:
            # Held assessments are counted once, by the walk that reaches nearer.
            for clear, before, nearer in ((clear_raw, raw, raw >= uris), (clear_uris, uris, uris > raw)):
                for page in clear(engine, before, rows=settings.page_rows, dry_run=dry_run):
                    for count in page:
                        if count.what is not ClearResult.HELD or nearer:
                            months.setdefault(count.month, Counter())[count.what] += count.n
                    more(sum(count.n for count in page if count.what is not ClearResult.HELD))
                    time.sleep(0 if dry_run else settings.pause_s)
    finally:  # interrupted as well: what was cleared is cleared
        _tell(months, raw, uris, dry_run=dry_run, as_json=as_json)


def _tell(
    months: dict[date, Counter[str]], raw: datetime, uris: datetime, *, dry_run: bool, as_json: bool
) -> None:
    rows = [
        {"month": f"{month:%Y-%m}"} | {what.value: counts[what] for what in ClearResult}
        for month, counts in sorted(months.items())
    ]
    if as_json:
        print_json({"dry_run": dry_run, "raw_before": raw, "uris_before": uris, "months": rows})
        return
    print_table(rows, {str(field): heading for field, heading in _HEADINGS.items()})
    total = sum(n for counts in months.values() for what, n in counts.items() if what != ClearResult.HELD)
    talk(f"{'would clear' if dry_run else 'cleared'} {total}")


@_hold.command("add")
def add(
    reason: Annotated[str, typer.Option(help="Why, such as a case number.")],
    id_: Id = None,
    batch: OfBatch = None,
    by: By = None,
    as_json: Json = False,
) -> None:
    """Hold a batch or an assessment: nothing of it is cleared."""
    held = _held(id_, batch)
    why, who = plain_words("--reason", reason), plain_words("--by", by or login_name())
    with opened_ledger() as engine:
        added = add_hold(engine, held, reason=why, by=who)
    if as_json:
        print_json({"added": added})
    else:
        talk("held" if added else "held already")


@_hold.command("remove")
def remove(id_: Id = None, batch: OfBatch = None, by: By = None, as_json: Json = False) -> None:
    """End a hold.

    The next retention clears what has become old meanwhile.
    """
    held, who = _held(id_, batch), plain_words("--by", by or login_name())
    with opened_ledger() as engine:
        removed = remove_hold(engine, held, by=who)
    if as_json:
        print_json({"removed": removed})
    else:
        talk("removed" if removed else "nothing held it")


@_hold.command("list")
def list_(
    removed: Annotated[bool, typer.Option("--all", help="Those that were removed as well.")] = False,
    as_json: Json = False,
) -> None:
    """List what is held, by whom and why."""
    with opened_ledger() as engine:
        held = holds(engine, removed=removed)
    if as_json:
        print_json(held)
        return
    rows = [
        {
            "what": f"batch {hold.batch}" if hold.batch is not None else str(hold.assessment_id),
            "reason": hold.reason,
            "added": f"{hold.added_at:%Y-%m-%d} by {hold.added_by}",
            "removed": f"{hold.removed_at:%Y-%m-%d} by {hold.removed_by}" if hold.removed_at else None,
        }
        for hold in held
    ]
    shown = {name: name for name in ("what", "reason", "added", *(("removed",) if removed else ()))}
    if not print_table(rows, shown):
        talk("nothing is held")


def _held(id_: str | None, batch: str | None) -> HoldTarget:
    try:
        return HoldTarget(batch=batch, assessment_id=UUID(id_) if id_ is not None else None)
    except ValueError:
        raise InvalidSubmission(f"{id_!r} is not an assessment's id") from None

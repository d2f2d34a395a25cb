"""Commands that change what is queued: retry and cancel."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated
from uuid import UUID

import typer

from moderation.cli.opening import opened_ledger
from moderation.cli.output import print_json, talk
from moderation.cli.reading import Batch, Code, Json, Policy
from moderation.errors import InvalidSubmission
from moderation.ledger.reading import failure_counts
from moderation.ledger.retry import Selection, cancel_queued, retry_failed

commands = typer.Typer()

Ids = Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="Only these assessments.")]
All = Annotated[bool, typer.Option("--all", help="Every one; without a filter this is asked for.")]
_PAGE = 10_000  # rows of one statement, so that a large retry holds no lock for long


@commands.command()
def retry(
    ids: Ids = None,
    code: Code = None,
    batch: Batch = None,
    policy: Policy = None,
    everything: All = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be retried.")] = False,
    as_json: Json = False,
) -> None:
    """Queue failed assessments again, with a fresh count of attempts. Their history is kept."""
    selection = _selection(ids, code, batch, policy, everything)
    with opened_ledger() as engine:
        if dry_run:
            count = sum(failure_counts(engine, selection).values())
        else:
            now = datetime.now(UTC)
            count = _in_pages(lambda: retry_failed(engine, selection, limit=_PAGE, before=now))
    _report("would be retried" if dry_run else "retried", count, as_json)


@commands.command()
def cancel(
    ids: Ids = None,
    batch: Batch = None,
    policy: Policy = None,
    everything: All = False,
    as_json: Json = False,
) -> None:
    """Cancel assessments that no worker has claimed."""
    selection = _selection(ids, None, batch, policy, everything)
    with opened_ledger() as engine:
        count = _in_pages(lambda: cancel_queued(engine, selection, limit=_PAGE))
    _report("cancelled", count, as_json)


def _selection(
    ids: list[str] | None, code: str | None, batch: str | None, policy: str | None, everything: bool
) -> Selection:
    try:
        wanted = tuple(UUID(id_) for id_ in ids or ())
    except ValueError:
        raise InvalidSubmission("an assessment's id is a UUID") from None
    if not (wanted or code or batch or policy or everything):
        raise InvalidSubmission("say which: an ID, --code, --batch, --policy, or --all")
    return Selection(code=code, batch=batch, policy=policy, ids=wanted)


def _in_pages(change: Callable[[], list[UUID]]) -> int:
    total = 0
    while changed := change():
        total += len(changed)
    return total


def _report(what: str, count: int, as_json: bool) -> None:
    if as_json:
        print_json({what.replace(" ", "_"): count})
    else:
        talk(f"{what}: {count}")

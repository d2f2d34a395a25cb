"""Commands that change what is queued: retry, cancel and requeue-stuck."""

from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated
from uuid import UUID

import typer
from sqlalchemy import Engine

from moderation.cli.opening import opened_ledger
from moderation.cli.output import print_json, progress_bar, talk
from moderation.cli.reading import Batch, Json, Policy
from moderation.cli.selecting import All, Code, Host, Ids, NewerThan, OlderThan, age, selected
from moderation.errors import InvalidSubmission
from moderation.ledger.retry import cancel_queued, count_cancellable, count_retryable, retry_failed
from moderation.ledger.selection import Selection
from moderation.ledger.stuck import Stuck, count_stuck, free_stuck
from moderation.settings import LeaseSettings

commands = typer.Typer()

DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")]
_PAGE = 10_000  # rows of one statement, so that a large retry holds no lock for long


@commands.command()
def retry(
    ids: Ids = None,
    code: Code = None,
    batch: Batch = None,
    policy: Policy = None,
    host: Host = None,
    older_than: OlderThan = None,
    newer_than: NewerThan = None,
    everything: All = False,
    per_s: Annotated[
        float | None,
        typer.Option(min=0.001, metavar="N", help="So many a second become due; by default all at once."),
    ] = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Queue failed assessments again, with a fresh count of attempts. Their history is kept."""
    selection = _narrowed(
        selected(
            ids=ids,
            code=code,
            batch=batch,
            policy=policy,
            host=host,
            older_than=older_than,
            newer_than=newer_than,
        ),
        everything,
        "--code, --batch, --policy, --host, an age",
    )
    with opened_ledger() as engine:
        wanted = count_retryable(engine, selection)
        if dry_run:
            _report("would be retried", wanted, as_json)
            return
        count = _retry(engine, selection, wanted, 1 / per_s if per_s else 0.0)
    _report("retried", count, as_json)
    if per_s and count and not as_json:
        talk(f"the last of them is due in {count / per_s:.0f} s")


@commands.command()
def cancel(
    ids: Ids = None,
    batch: Batch = None,
    policy: Policy = None,
    host: Host = None,
    everything: All = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Cancel assessments that no worker has claimed. To submit them again takes enqueue --again, or other keys."""
    selection = _narrowed(
        selected(ids=ids, batch=batch, policy=policy, host=host), everything, "--batch, --policy, --host"
    )
    with opened_ledger() as engine:
        wanted = count_cancellable(engine, selection)
        if dry_run:
            _report("would be cancelled", wanted, as_json)
            return
        count = _in_pages(lambda _: cancel_queued(engine, selection, limit=_PAGE), "cancelled", wanted)
    _report("cancelled", count, as_json)


@commands.command("requeue-stuck")
def requeue_stuck(
    older_than: Annotated[
        str, typer.Option(metavar="AGE", help="Rings count from this age on: 90s, 15m, 2h.")
    ] = "1m",
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Free what dead workers hold and ring again what nobody answered, as any worker's sweeper does each second."""
    after_s = age(older_than).total_seconds()
    with opened_ledger() as engine:
        done = count_stuck(engine, after_s=after_s) if dry_run else _free(engine, after_s)
    if as_json:
        print_json(asdict(done) | {"dry_run": dry_run})
        return
    would = "would be " if dry_run else ""
    talk(f"{done.leases} whose lease ran out {would}freed, {done.rings} without an answer {would}due again")


def _free(engine: Engine, after_s: float) -> Stuck:
    leases = rings = 0
    while True:
        done = free_stuck(
            engine,
            after_s=after_s,
            max_crashes=LeaseSettings().max_crashes,
            worker="requeue-stuck",
            limit=_PAGE,
        )
        leases, rings = leases + done.leases, rings + done.rings
        if max(done.leases, done.rings) < _PAGE:
            return Stuck(leases, rings)


def _narrowed(selection: Selection, everything: bool, filters: str) -> Selection:
    """filters: those that the command has, for whoever named none. Raises InvalidSubmission then."""
    if selection == Selection() and not everything:
        raise InvalidSubmission(f"say which: an ID, {filters}, or --all")
    return selection


def _retry(engine: Engine, selection: Selection, wanted: int, every_s: float) -> int:
    now = datetime.now(UTC)

    def page(done: int) -> list[UUID]:
        return retry_failed(
            engine, selection, limit=_PAGE, before=now, first_s=done * every_s, every_s=every_s
        )

    return _in_pages(page, "retried", wanted)


def _in_pages(change: Callable[[int], list[UUID]], what: str, total: int | None) -> int:
    """Page after page until nothing is left. change: is told how many were changed so far."""
    count = 0
    with progress_bar() as bar:
        task = bar.add_task(what, total=total)
        while changed := change(count):
            count += len(changed)
            bar.advance(task, len(changed))
    return count


def _report(what: str, count: int, as_json: bool) -> None:
    if as_json:
        print_json({what.replace(" ", "_"): count})
    else:
        talk(f"{what}: {count}")

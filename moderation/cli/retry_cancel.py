"""Commands that change what is queued: retry, cancel and requeue-stuck."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Annotated
from uuid import UUID

import typer
from sqlalchemy import Engine

from moderation.assessment import State
from moderation.cli.filters import (
    All,
    Code,
    Host,
    Ids,
    NewerThan,
    OlderThan,
    SubmittedBefore,
    SubmittedSince,
    age,
    selected,
)
from moderation.cli.open_ledger import opened_ledger
from moderation.cli.options import Batch, Json, Policy, Tenant
from moderation.cli.output import print_json, progress_bar, talk
from moderation.cli.unchanged_report import CANCEL, RETRY, report, unchanged
from moderation.errors import InvalidSubmission
from moderation.ledger.retry import (
    cancel_queued,
    cancellable,
    count_cancellable,
    count_retryable,
    retry_failed,
    retryable,
)
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
    tenant: Tenant = None,
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
    """Queue failed assessments again.

    They get a fresh count of attempts, and their history is kept. An ID that is not retried is named with the
    reason, and the exit code is 3.
    """
    selection = _narrowed(
        selected(
            ids=ids,
            code=code,
            batch=batch,
            policy=policy,
            tenant=tenant,
            host=host,
            older_than=older_than,
            newer_than=newer_than,
        ),
        everything,
        "--code, --batch, --policy, --tenant, --host, an age",
    )
    now, every_s = datetime.now(UTC), 1 / per_s if per_s else 0.0

    def page(engine: Engine, done: int) -> list[UUID]:
        return retry_failed(
            engine, selection, limit=_PAGE, before=now, first_s=done * every_s, every_s=every_s
        )

    retrying = _BulkChange("retried", count_retryable, retryable, page, RETRY)
    count = retrying.run(selection, dry_run=dry_run, as_json=as_json)
    if per_s and count and not (as_json or dry_run):
        talk(f"the last of them is due in {count / per_s:.0f} s")


@commands.command()
def cancel(
    ids: Ids = None,
    batch: Batch = None,
    policy: Policy = None,
    tenant: Tenant = None,
    host: Host = None,
    older_than: SubmittedBefore = None,
    newer_than: SubmittedSince = None,
    everything: All = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Cancel assessments that no worker has claimed.

    To submit them again takes `vetline enqueue --again`, or other keys. An ID that is not cancelled is named with
    the reason, and the exit code is 3.
    """
    selection = _narrowed(
        selected(
            ids=ids,
            batch=batch,
            policy=policy,
            tenant=tenant,
            host=host,
            submitted_before=older_than,
            submitted_since=newer_than,
        ),
        everything,
        "--batch, --policy, --tenant, --host, an age",
    )

    def page(engine: Engine, _: int) -> list[UUID]:
        return cancel_queued(engine, selection, limit=_PAGE)

    cancelling = _BulkChange("cancelled", count_cancellable, cancellable, page, CANCEL)
    cancelling.run(selection, dry_run=dry_run, as_json=as_json)


@commands.command("requeue-stuck")
def requeue_stuck(
    older_than: Annotated[
        str, typer.Option(metavar="AGE", help="Rings count from this age on: 90s, 15m, 2h.")
    ] = "1m",
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Free what dead workers hold; ring again what was lost.

    Every worker's sweeper does this each second; this is for when no worker runs.
    """
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


@dataclass(frozen=True, slots=True)
class _BulkChange:
    """What a command does to a selection.

    count, which: how many, and which, it would change. page: changes some, and is told how many were before.
    reasons: why it leaves what is in another state.
    """

    what: str
    count: Callable[[Engine, Selection], int]
    which: Callable[[Engine, Selection], set[UUID]]
    page: Callable[[Engine, int], list[UUID]]
    reasons: Mapping[State, str]

    def run(self, selection: Selection, *, dry_run: bool, as_json: bool) -> int:
        """Page after page until nothing is left, and tell. How many were changed, or would be."""
        named = bool(selection.ids)
        with opened_ledger() as engine:
            wanted = self.count(engine, selection)
            if dry_run:
                count, changed = wanted, self.which(engine, selection) if named else set()
            else:
                count, changed = self._in_pages(engine, wanted, named)
            unchanged_items = unchanged(engine, selection, changed, self.reasons)
        report(
            f"would be {self.what}" if dry_run else self.what,
            count,
            unchanged_items,
            named=named,
            as_json=as_json,
        )
        return count

    def _in_pages(self, engine: Engine, total: int, named: bool) -> tuple[int, set[UUID]]:
        """How many, and which where they are named; there may be millions otherwise."""
        count = 0
        which: set[UUID] = set()
        with progress_bar() as bar:
            task = bar.add_task(self.what, total=total)
            while changed := self.page(engine, count):
                count += len(changed)
                which.update(changed if named else ())
                bar.advance(task, len(changed))
        return count, which

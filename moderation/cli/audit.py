"""`vetline audit`: the ledger reconciled with itself."""

import textwrap
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated

import typer

from moderation.cli.filters import age
from moderation.cli.open_ledger import opened_ledger
from moderation.cli.options import Json
from moderation.cli.output import print_json, say, talk
from moderation.errors import InvalidSubmission
from moderation.ledger.audit.finding import AuditFinding
from moderation.ledger.audit.run import AuditReport, Coverage
from moderation.ledger.audit.run import audit as reconcile

commands = typer.Typer()

_BREACHES = 1
_WIDTH = 80


@commands.command()
def audit(
    since: Annotated[
        str | None,
        typer.Option(metavar="AGE", help="Only what was submitted since: 90s, 15m, 2h, 7d."),
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="All of it, however long that takes.")] = False,
    limit_s: Annotated[
        float, typer.Option("--limit-s", min=0.1, metavar="SECONDS", help="End after so long.")
    ] = 60.0,
    ids: Annotated[int, typer.Option(min=1, help="How many ids to name of each kind of breach.")] = 20,
    as_json: Json = False,
) -> None:
    """Reconcile the ledger with itself.

    Changes nothing. Exits 1 where the ledger contradicts itself.

    Verdicts against the feed, states against verdicts and leases, attempts against charges, counts against rows,
    places of consumers and webhooks against verdicts. Tells how much was covered in the time.
    """
    if full and since is not None:
        raise InvalidSubmission("--full is all of it, and --since a part; take one")
    from_ = datetime.now(UTC) - age(since) if since is not None else None
    with opened_ledger() as engine:
        report = reconcile(engine, limit_s=None if full else limit_s, since=from_, ids=ids)
    if as_json:
        print_json(
            {
                "complete": report.complete,
                "since": from_,
                "breaches": [asdict(one) for one in report.findings],
                "parts": [asdict(part) for part in report.parts],
                "took_s": round(report.took_s, 3),
            }
        )
    else:
        _tell(report)
    if not report.complete:
        talk("not all was covered: give it more time (--limit-s, --full), or look at less (--since)")
    if report.findings:
        raise typer.Exit(_BREACHES)


def _tell(report: AuditReport) -> None:
    for part in report.parts:
        say(f"{part.part:<12} {part.rows:>13,} rows  {_covered(part):<10} {part.took_s:>8.1f} s")
    if not report.findings:
        say("no breach")
    for one in report.findings:
        _tell_one(one)


def _covered(part: Coverage) -> str:
    return "all" if part.complete else "not all"


def _tell_one(one: AuditFinding) -> None:
    say(f"\n{one.check}: {one.what}: {one.count:,}")
    for id_ in one.ids:
        say(textwrap.fill(id_, _WIDTH, initial_indent="  ", subsequent_indent="    "))
    if one.count > len(one.ids):
        say(f"  and {one.count - len(one.ids):,} more")

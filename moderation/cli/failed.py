"""`vetline failed`: what failed, in groups first."""

from typing import Annotated

import typer

from moderation.cli.filters import Code, Host, NewerThan, OlderThan, selected
from moderation.cli.open_ledger import opened_ledger
from moderation.cli.options import Batch, Json, Policy, Tenant
from moderation.cli.output import print_json, print_table, say, talk
from moderation.ledger.failures import FailureGroup, failure_counts, failure_groups, failures
from moderation.ledger.selection import Selection
from moderation.redaction import redact_uri

commands = typer.Typer()

_BY = [FailureGroup.CODE, FailureGroup.HOST]  # what is wrong, and where: the two that say what to mend
_COLUMNS = {
    "id": "id",
    "error_code": "code",
    "uri": "image",
    "error_detail": "what happened",
    "attempt": "attempts",
}


@commands.command()
def failed(
    code: Code = None,
    batch: Batch = None,
    policy: Policy = None,
    tenant: Tenant = None,
    host: Host = None,
    older_than: OlderThan = None,
    newer_than: NewerThan = None,
    by: Annotated[list[FailureGroup] | None, typer.Option(help="Count by this; may be repeated.")] = None,
    limit: Annotated[int, typer.Option(min=0, help="Items shown.")] = 100,
    as_json: Json = False,
) -> None:
    """Show what failed, by error code and host.

    Counts come first, then the items, oldest first.
    """
    selection = selected(
        code=code,
        batch=batch,
        policy=policy,
        tenant=tenant,
        host=host,
        older_than=older_than,
        newer_than=newer_than,
    )
    groups_by = list(dict.fromkeys(by or _BY))
    with opened_ledger() as engine:
        counts = failure_counts(engine, selection)
        groups = failure_groups(engine, selection, groups_by)
        rows = [row | {"uri": redact_uri(row["uri"])} for row in failures(engine, selection, limit=limit)]
    total = sum(counts.values())
    if as_json:
        print_json({"failed": total, "counts": counts, "groups": groups, "items": rows})
    elif not groups:
        talk("nothing failed" if selection == Selection() else "nothing failed that these filters mean")
    else:
        headings = {group.value: group.value for group in groups_by}
        print_table(groups, {"n": "failed"} | headings | {"first_at": "first (UTC)", "last_at": "last (UTC)"})
        if rows:
            say()
            print_table(rows, _COLUMNS)
        if total > len(rows):
            talk(f"{len(rows)} of {total} shown; --limit shows more")

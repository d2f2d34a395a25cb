"""`vetline golden`: images whose rating is known, judged again among live ones, so that a model that slips is seen."""

from pathlib import Path
from typing import Annotated
from uuid import UUID

import typer

from moderation.cli.open_ledger import opened_ledger
from moderation.cli.options import Json
from moderation.cli.output import print_json, print_table, talk
from moderation.cli.signature import login_name, plain_words
from moderation.errors import BadSource, InvalidSubmission
from moderation.ledger import golden as ledger
from moderation.ledger import registry
from moderation.settings import ServiceSettings

commands = typer.Typer()
_group = typer.Typer(help="Judge known images among live ones.", no_args_is_help=True)
commands.add_typer(_group, name="golden")

Policy = Annotated[str, typer.Option(metavar="ID", help="The policy that they are known under.")]
By = Annotated[str | None, typer.Option(help="Who does it; your login name if left out.")]


def _who(by: str | None) -> str:
    return plain_words("--by", by if by is not None else login_name())


@_group.command()
def add(
    source: Annotated[Path, typer.Argument(help="LabelledImage rows, as `vetline evaluate` reads them.")],
    policy: Policy,
    rate: Annotated[
        float | None, typer.Option(min=0, max=1, help="Judge one beside this share of live items.")
    ] = None,
    by: By = None,
) -> None:
    """Add images whose rating is known.

    Their places must stay: each is fetched again and again.
    """
    from consumer.evaluation.labels import LabelColumns
    from consumer.evaluation.sources import read_labelled

    data = read_labelled(str(source), LabelColumns(), images=ServiceSettings().data_dir / "golden")
    if bad := next((row for row in data.rows if row.problem), None):
        raise BadSource(f"{source}: row {bad.row}: {bad.problem}")
    items = [ledger.NewItem(row.uri, row.unsafe, row.category) for row in data.rows]
    with opened_ledger() as engine:
        registry.find(engine, policy)
        added = ledger.add_golden(engine, policy, items, by=_who(by))
        if rate is not None:
            ledger.set_rate(engine, policy, rate, by=_who(by))
    talk(f"{added} golden items added to {policy}, {len(items) - added} were there")


@_group.command()
def rate(
    policy: Policy,
    share: Annotated[float, typer.Argument(min=0, max=1, help="Of the policy's live items; 0 ends it.")],
    by: By = None,
) -> None:
    """Set beside which share of live items one is judged."""
    with opened_ledger() as engine:
        ledger.set_rate(engine, policy, share, by=_who(by))
    talk(f"golden items of {policy} are judged beside {share:.2%} of its live items")


@_group.command()
def remove(
    policy: Policy,
    ids: Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="Only these.")] = None,
    all_: Annotated[bool, typer.Option("--all", help="All of the policy's.")] = False,
    by: By = None,
) -> None:
    """Remove golden items; what was judged stays."""
    if bool(ids) == all_:
        raise InvalidSubmission("name the items, or say --all")
    try:
        wanted = [UUID(each) for each in ids or ()]
    except ValueError:
        raise InvalidSubmission("an item's id is a UUID") from None
    with opened_ledger() as engine:
        talk(f"{ledger.remove_golden(engine, policy, wanted, by=_who(by))} removed")


@_group.command("list")
def list_(as_json: Json = False) -> None:
    """List each policy's set, and how the last were judged."""
    with opened_ledger() as engine:
        sets, last = ledger.golden_sets(engine), {row["policy"]: row for row in ledger.recent(engine)}
    rows = [
        {name: getattr(s, name) for name in ("policy", "items", "unsafe", "share")} | last.get(s.policy, {})
        for s in sets
    ]
    if as_json:
        print_json(rows)
    else:
        heads = {"policy": "policy", "items": "items", "unsafe": "Unsafe", "share": "rate", "tp": "found", "fn": "missed",
                 "fp": "false alarms", "tn": "passed", "failed": "failed"}  # fmt: skip
        print_table(rows, heads)

"""Commands that hold the queue up and let it go on: pause, resume, cap."""

import getpass
from typing import Annotated, Any

import typer

from moderation.cli.open_ledger import opened_ledger
from moderation.cli.options import Json
from moderation.cli.output import print_json, print_table, talk
from moderation.errors import InvalidSubmission
from moderation.ledger import pauses
from moderation.ledger.pauses import Scope

commands = typer.Typer()

OfBatch = Annotated[str | None, typer.Option(help="This batch.")]
OfPolicy = Annotated[str | None, typer.Option(help="This policy id, whatever the revision.")]
OfTenant = Annotated[str | None, typer.Option(help="This tenant.")]
Everything = Annotated[bool, typer.Option("--all", help="Everything.")]


@commands.command()
def pause(
    batch: OfBatch = None,
    policy: OfPolicy = None,
    tenant: OfTenant = None,
    everything: Everything = False,
    reason: Annotated[str, typer.Option(help="Shown by status for as long as it lasts.")] = "",
    as_json: Json = False,
) -> None:
    """Pause a batch, a policy, a tenant or everything.

    Workers claim nothing more of it. What runs may finish, and nothing is lost.
    """
    scope, name = _target(batch, policy, tenant, everything)
    with opened_ledger() as engine:
        changed = pauses.pause(engine, scope, name, reason=reason, by=_user())
    _report(scope, name, "paused", changed, "was paused already", as_json)


@commands.command()
def resume(
    batch: OfBatch = None,
    policy: OfPolicy = None,
    tenant: OfTenant = None,
    everything: Everything = False,
    as_json: Json = False,
) -> None:
    """End a pause.

    --all ends the pause of everything, and leaves those of single batches, policies and tenants.
    """
    scope, name = _target(batch, policy, tenant, everything)
    with opened_ledger() as engine:
        changed = pauses.resume(engine, scope, name)
    _report(scope, name, "resumed", changed, "was not paused", as_json)


@commands.command()
def cap(
    in_hand: Annotated[
        int | None, typer.Argument(metavar="COUNT", min=1, help="At most so many under way at once.")
    ] = None,
    batch: OfBatch = None,
    tenant: OfTenant = None,
    lift: Annotated[bool, typer.Option("--lift", help="No cap any more.")] = False,
    as_json: Json = False,
) -> None:
    """Limit how much of a batch or tenant runs at once.

    Without a number, list the caps.
    """
    if in_hand is None and not lift:
        _list_caps(as_json)
        return
    if in_hand is not None and lift:
        raise InvalidSubmission("say a number or --lift, not both")
    scope, name = _target(batch, tenant=tenant, options="--batch or --tenant")
    with opened_ledger() as engine:
        if in_hand is None:
            changed = pauses.uncap(engine, scope, name)
        else:
            pauses.cap(engine, scope, name, in_hand, by=_user())
            changed = True
    done = "lifted" if in_hand is None else f"capped at {in_hand}"
    _report(scope, name, done, changed, "had no cap", as_json, in_hand=in_hand)


def _list_caps(as_json: bool) -> None:
    with opened_ledger() as engine:
        rows = [
            {"scope": cap.scope.value, "name": cap.name, "in_hand": cap.in_hand, "set_by": cap.set_by, "set_at": cap.set_at}
            for cap in pauses.caps(engine)
        ]  # fmt: skip
    if as_json:
        print_json({"caps": rows})
    elif not print_table(rows, {"scope": "of", "name": "name", "in_hand": "at once", "set_by": "set by"}):
        talk("no caps")


def _target(
    batch: str | None,
    policy: str | None = None,
    tenant: str | None = None,
    everything: bool = False,
    *,
    options: str = "--batch, --policy, --tenant or --all",
) -> tuple[Scope, str]:
    """options: those that the command has, for whoever gave none of them or several. Raises InvalidSubmission then."""
    named = {Scope.BATCH: batch, Scope.POLICY: policy, Scope.TENANT: tenant}
    chosen = [(scope, name) for scope, name in named.items() if name is not None]
    if everything:
        chosen.append((Scope.EVERYTHING, ""))
    if len(chosen) != 1:
        raise InvalidSubmission(f"say which one, and only one: {options}")
    return chosen[0]


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container may run under a number that has no name
        return "unknown"


def _report(
    scope: Scope, name: str, done: str, changed: bool, otherwise: str, as_json: bool, **more: Any
) -> None:
    if as_json:
        print_json({"scope": scope.value, "name": name, "changed": changed, **more})
    else:
        what = "everything" if scope is Scope.EVERYTHING else f"{scope.value} {name}"
        talk(f"{what}: {done if changed else otherwise}")

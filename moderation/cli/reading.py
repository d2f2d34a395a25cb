"""The command that tells how it goes: status."""

from dataclasses import asdict
from typing import Annotated

import typer

from moderation.cli.opening import opened_ledger
from moderation.cli.output import print_json
from moderation.ledger import reading, tally
from moderation.ledger.pauses import Scope, pauses

commands = typer.Typer()

Json = Annotated[bool, typer.Option("--json", help="JSON on stdout.")]
Batch = Annotated[str | None, typer.Option(help="Only this batch.")]
Policy = Annotated[str | None, typer.Option(help="Only this policy id.")]


@commands.command()
def status(batch: Batch = None, as_json: Json = False) -> None:
    """Counts by state, pace, time left, and what is paused."""
    with opened_ledger() as engine:
        progress = tally.progress(engine, batch=batch)
        swept = reading.last_sweep(engine)
        paused = pauses(engine)
    states, pace, left_s = progress.states, progress.per_s, progress.left_s
    if as_json:
        told = {"batch": batch, "states": states, "per_s": pace, "left_s": left_s, "sweep": swept}
        print_json(told | {"pauses": [asdict(pause) for pause in paused]})
        return
    typer.echo("  ".join(f"{state} {count}" for state, count in states.items()))
    typer.echo(f"pace {pace:.1f}/s over the last minute" + (f", {left_s} s left" if left_s else ""))
    for pause in paused:
        what = pause.scope.value if pause.scope is Scope.EVERYTHING else f"{pause.scope.value} {pause.name}"
        why = f": {pause.reason}" if pause.reason else ""
        typer.echo(f"paused: {what}, by {pause.paused_by}, {pause.paused_at:%Y-%m-%d %H:%M} UTC{why}")
    if swept is None:
        typer.echo("swept: never; no worker has run on this ledger")
    else:
        typer.echo(f"swept {swept['age_s']:.0f} s ago by {swept['worker']}")

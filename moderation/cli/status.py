"""`vetline status`: counts, pace, workers, pauses and caps."""

from dataclasses import asdict

import typer

from moderation.cli.open_ledger import opened_ledger
from moderation.cli.options import Batch, Json, Tenant
from moderation.cli.output import duration_text, print_json, say
from moderation.cli.worker_table import count_workers
from moderation.ledger import counters, queries
from moderation.ledger import workers as ledger_workers
from moderation.ledger.pauses import Scope, caps, pauses
from moderation.ledger.rejected import rejected_counts

commands = typer.Typer()


@commands.command()
def status(batch: Batch = None, tenant: Tenant = None, as_json: Json = False) -> None:
    """Show counts by state, pace, workers and pauses.

    The pace is of the last minute; the time left is what is open at that pace.
    """
    with opened_ledger() as engine:
        progress = counters.progress(engine, batch=batch, tenant=tenant)
        swept = queries.last_sweep(engine)
        workers = ledger_workers.counts(engine)
        paused = pauses(engine)
        capped = caps(engine)
        rejected = rejected_counts(engine)
    states, pace, left_s = progress.states, progress.per_s, progress.left_s
    if as_json:
        output = {"batch": batch, "tenant": tenant, "states": states, "per_s": pace, "left_s": left_s}
        held_up = {"pauses": [asdict(pause) for pause in paused], "caps": [asdict(cap) for cap in capped]}
        print_json(output | {"sweep": swept, "workers": workers, "rejected": rejected} | held_up)
        return
    say("  ".join(f"{state} {count}" for state, count in states.items()))
    say(f"pace {pace:.1f}/s over the last minute" + (f", {duration_text(left_s)} left" if left_s else ""))
    say(count_workers(workers))
    for pause in paused:
        what = pause.scope.value if pause.scope is Scope.EVERYTHING else f"{pause.scope.value} {pause.name}"
        why = f": {pause.reason}" if pause.reason else ""
        say("paused: ", f"{what}, by {pause.paused_by}, {pause.paused_at:%Y-%m-%d %H:%M} UTC{why}")
    for cap in capped:
        say("capped: ", f"{cap.scope.value} {cap.name} at {cap.in_hand}, by {cap.set_by}")
    if rejected:
        say(f"rejected messages: {sum(rejected.values())}; `vetline rejected list` says why")
    if swept is None:
        say("swept: never; no worker has run on this ledger")
    else:
        say(f"swept {swept['age_s']:.0f} s ago by {swept['worker']}")

"""`vetline watch`: a live page of what the ledger sees."""

import sys
import time
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import typer
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text
from sqlalchemy import Engine

from moderation.cli.open_ledger import opened_ledger
from moderation.cli.options import Batch, Json
from moderation.cli.output import duration_text, print_jsonl, talk
from moderation.cli.worker_table import count_workers, counted, worker_table
from moderation.errors import LedgerUnavailable
from moderation.ledger import counters, queries
from moderation.ledger.activity import workers
from moderation.ledger.failures import failure_counts
from moderation.ledger.selection import Selection
from moderation.safe_text import for_terminal

commands = typer.Typer()

_SWEEP_LATE_S = 15.0  # a sweeper signs every second; so late, no worker is there or none reaches Postgres
_STYLES = {"running": "cyan", "done": "green", "failed": "red"}


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What is to be seen at one moment. left_s: seconds until nothing is open, at this pace."""

    batch: str | None
    open: int
    states: dict[str, int]
    per_s: float
    left_s: int | None
    failures: dict[str, int]
    workers: list[dict[str, Any]]
    sweep: dict[str, Any] | None


def take_snapshot(engine: Engine, batch: str | None) -> Snapshot:
    """The ledger as it is now."""
    progress = counters.progress(engine, batch=batch)
    return Snapshot(
        batch=batch,
        open=progress.open,
        states=progress.states,
        per_s=progress.per_s,
        left_s=progress.left_s,
        failures=failure_counts(engine, Selection(batch=batch)),
        workers=workers(engine),
        sweep=queries.last_sweep(engine),
    )


@commands.command()
def watch(
    batch: Batch = None,
    every_s: Annotated[
        float, typer.Option("--every", min=0.2, metavar="SECONDS", help="Look again after.")
    ] = 1.0,
    until_done: Annotated[
        bool, typer.Option("--until-done", help="End when nothing is open any more.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Watch states, pace, failures and workers live.

    It looks again until Ctrl-C. With --json, or where stdout is no terminal, each look is a line of JSON.
    """
    console = Console()
    with opened_ledger() as engine:
        if as_json or not console.is_terminal:
            _follow(engine, batch, every_s, until_done)
            return
        with Live(console=console, screen=True, auto_refresh=False) as live:
            while True:
                sight = _look_on(engine, batch)
                live.update(
                    page(sight) if isinstance(sight, Snapshot) else Text(for_terminal(sight), style="red"),
                    refresh=True,
                )
                if _is_over(sight, until_done):
                    return
                time.sleep(every_s)


def page(sight: Snapshot) -> RenderableType:
    """What a person sees of it."""
    head = Table.grid(padding=(0, 3))
    head.add_row(
        *(Text(f"{name} {count:,}", style=_STYLES.get(name, "")) for name, count in sight.states.items())
    )
    time_left = f", {duration_text(sight.left_s)} left" if sight.left_s is not None else ""
    title = f"batch {sight.batch}" if sight.batch else "everything"
    parts: list[RenderableType] = [
        Text(f"{for_terminal(title)}: {sight.per_s:.1f}/s over the last minute{time_left}", style="bold"),
        head,
        _swept(sight.sweep),
        Text(),
        _counted(sight.workers),
        worker_table(sight.workers),
    ]
    if sight.failures:
        codes = "  ".join(f"{code} {count:,}" for code, count in sight.failures.items())
        parts += [Text(), Text(f"failed: {codes}", style="red")]
    return Group(*parts)


def _counted(rows: list[dict[str, Any]]) -> Text:
    states = counted(rows)
    well = any(states.values()) and not states["silent"]
    return Text(count_workers(states), style="" if well else "yellow")


def _swept(sweep: dict[str, Any] | None) -> Text:
    if sweep is None:
        return Text("swept: never; no worker has run on this ledger", style="yellow")
    late = sweep["age_s"] > _SWEEP_LATE_S
    return Text(
        f"swept {duration_text(sweep['age_s'])} ago by {sweep['worker']}", style="red" if late else "dim"
    )


def _follow(engine: Engine, batch: str | None, every_s: float, until_done: bool) -> None:
    while True:
        sight = _look_on(engine, batch)
        if isinstance(sight, Snapshot):
            print_jsonl([asdict(sight)])
            sys.stdout.flush()
        else:
            talk(sight)
        if _is_over(sight, until_done):
            return
        time.sleep(every_s)


def _look_on(engine: Engine, batch: str | None) -> Snapshot | str:
    """What is to be seen, or why nothing is: whoever watches wants to see Postgres come back too."""
    try:
        return take_snapshot(engine, batch)
    except LedgerUnavailable as exc:
        return f"{exc}; looking again"


def _is_over(sight: Snapshot | str, until_done: bool) -> bool:
    return until_done and isinstance(sight, Snapshot) and sight.open == 0

"""Workers as people read them: on the page of `vetline watch`, and in a line of `vetline status`."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from moderation.cli.output import duration_text
from moderation.ledger.workers import STATES
from moderation.safe_text import for_terminal

if TYPE_CHECKING:  # rich is loaded where the table is drawn; `vetline status` prints a line
    from rich.console import RenderableType

Row = Mapping[str, Any]

_HEADINGS = (
    "worker",
    "host",
    "state",
    "runtime",
    "in hand",
    "asked",
    "last minute",
    "oldest",
    "last verdict",
)
_STYLES = {"waiting": "yellow", "silent": "red"}
_WORDS = {"ready": "{} ready", "waiting": "{} waiting", "silent": "{} not seen"}


def counted(rows: Sequence[Row]) -> dict[str, int]:
    """How many are in each state; a worker of a release that does not say is in none."""
    states = Counter(row["state"] for row in rows)
    return {state: states[state] for state in STATES}


def count_workers(states: Mapping[str, int]) -> str:
    """One line of it."""
    if not any(states.values()):
        return "workers: none"
    return "workers: " + ", ".join(_WORDS[state].format(count) for state, count in states.items() if count)


def worker_table(rows: Sequence[Row]) -> "RenderableType":
    """A line for each worker, and below it a line for each thing that it waits for."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    if not rows:
        return Text()
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in _HEADINGS:
        table.add_column(heading, overflow="fold")
    for row in rows:
        style = "red" if row["lease_ran_out"] else _STYLES.get(row["state"])
        table.add_row(*(Text(for_terminal(cell)) for cell in _cells(row)), style=style)
    waits = [Text(for_terminal(line), style="yellow") for row in rows for line in _waits(row)]
    return Group(table, *waits)


def _cells(row: Row) -> tuple[str, ...]:
    """Of one that is silent, only what the ledger knows by itself."""
    status: Row = {} if row["state"] == "silent" else row
    return (
        row["worker"],
        " ".join(filter(None, (row["host"], row["gpu"]))),
        _state(row),
        " ".join(filter(None, (row["runtime"], status.get("runtime_state")))),
        _of(row["in_hand"], row["in_hand_limit"]),
        _of(status.get("in_flight"), status.get("in_flight_limit")),
        str(row["last_minute"]),
        duration_text(row["oldest_s"]),
        f"{duration_text(row['answered_s'])} ago" if row["answered_s"] is not None else "",
    )


def _state(row: Row) -> str:
    return f"not seen for {duration_text(row['seen_s'])}" if row["state"] == "silent" else row["state"] or ""


def _of(count: int | None, limit: int | None) -> str:
    """Nothing where it does not say."""
    return "" if count is None else str(count) if limit is None else f"{count}/{limit}"


def _waits(row: Row) -> list[str]:
    """One that is silent waits for nothing that we know of."""
    if row["state"] == "silent":
        return []
    return [f"{row['worker']} waits: {wait['name']}: {wait['reason']}" for wait in row["waits"]]

"""How commands show rows: a table for a person, JSON for a program. Data on stdout, talk on stderr."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pydantic_core import to_json

from moderation.safe_text import for_terminal, json_for_terminal

_SAY_S = 10.0  # between two lines of progress where stderr is no terminal

if TYPE_CHECKING:  # rich is loaded where a table or a bar is drawn
    from rich.progress import Progress

Row = Mapping[str, Any]


def say(line: str = "", *values: object) -> None:
    """Lines for a person, on stdout. values: of other people's making, which come behind them in one line each."""
    sys.stdout.write(
        for_terminal(line, lines=True) + " ".join(for_terminal(str(value)) for value in values) + "\n"
    )


def visible(value: Any) -> Any:
    """The same with every text in it made safe for a line on a terminal."""
    if isinstance(value, str):
        return for_terminal(value)
    if isinstance(value, Mapping):
        return {key: visible(item) for key, item in value.items()}
    return [visible(item) for item in value] if isinstance(value, list | tuple) else value


def talk(line: str) -> None:
    """One line for a person, on stderr."""
    sys.stderr.write(for_terminal(line, lines=True) + "\n")
    sys.stderr.flush()


def duration_text(seconds: float | None) -> str:
    """A time span for a person, in the largest unit that says enough; "" for None."""
    if seconds is None:
        return ""
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172_800 else f"{seconds / 86_400:.1f} d"


def progress_bar() -> "Progress":
    """A bar on stderr where that is a terminal; nothing where nobody looks. Time left where the total is known."""
    from moderation.cli.progress import bar

    return bar()


def print_json(value: Any) -> None:
    """One JSON object on stdout."""
    print(json_for_terminal(to_json(value, indent=2).decode()))  # noqa: T201 - data goes to stdout


def print_jsonl(rows: Iterable[Row]) -> int:
    """A JSON object a line on stdout; how many there were."""
    count = 0
    for row in rows:
        print(json_for_terminal(to_json(dict(row)).decode()))  # noqa: T201 - as above
        count += 1
    return count


def print_table(
    rows: Iterable[Row], columns: Mapping[str, str], *, style: Callable[[Row], str | None] = lambda _: None
) -> int:
    """A table on stdout, as wide as the terminal. columns: heading by field. How many rows there were."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(width=None if sys.stdout.isatty() else 160)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in columns.values():
        table.add_column(heading, overflow="fold")
    count = 0
    for row in rows:
        table.add_row(*(Text(_shown(row.get(field))) for field in columns), style=style(row))
        count += 1
    if count:
        console.print(table)
    return count


def _plain(value: Any) -> Any:
    return to_json(value).decode() if isinstance(value, dict | list) else value


def _shown(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, datetime):
        return f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%S}"
    return for_terminal(str(_plain(value)))


@contextmanager
def progress_counter(what: str) -> Iterator[Callable[[int], None]]:
    """Progress on stderr: a bar on a terminal, elsewhere a line every ten seconds."""
    total, printed_at = 0, time.monotonic()
    with progress_bar() as bar:
        task = bar.add_task(what, total=None)

        def more(count: int) -> None:
            nonlocal total, printed_at
            total += count
            bar.advance(task, count)
            if bar.disable and time.monotonic() - printed_at >= _SAY_S:
                printed_at = time.monotonic()
                talk(f"{what}: {total}")

        yield more

"""The bar that a command shows on a terminal while it works through many items."""

from datetime import timedelta

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text


class _RateColumn(ProgressColumn):
    """Items a second since the start; the task's field `before` is what was done before it."""

    def render(self, task: Task) -> Text:
        rate = _rate(task)
        return Text("" if rate is None else f"{rate:,.0f}/s")


class _TimeLeftColumn(ProgressColumn):
    """How long it will take at that rate; rich's own column forgets the rate whenever an estimated total changes."""

    def render(self, task: Task) -> Text:
        rate, remaining = _rate(task), task.remaining
        return Text(
            "" if not rate or remaining is None else f"{timedelta(seconds=round(remaining / rate))} left"
        )


def _rate(task: Task) -> float | None:
    return (task.completed - task.fields.get("before", 0)) / task.elapsed if task.elapsed else None


def bar() -> Progress:
    """On stderr where that is a terminal; it shows nothing elsewhere."""
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _RateColumn(),
        TimeElapsedColumn(),
        _TimeLeftColumn(),
        console=console,
        disable=not console.is_terminal,
        transient=True,
    )

"""Plots a report as PNG. Needs matplotlib, the extra `plots`."""

from pathlib import Path
from typing import Any

from consumer.report.summary import Grouping, Report

_MOST_BARS = 25  # more cannot be read
_COLOURS = {"Safe": "#4c8c5a", "Unsafe": "#b3403a", "no verdict": "#9a9a9a"}


def draw_plots(report: Report, folder: Path) -> list[str] | None:
    """Write the plots and name the files; None where matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return None
    drawn = {"categories.png": _categories(Figure, report)}
    for grouping in (report.grouping, report.batches):
        if grouping and grouping.shown:
            drawn[f"{grouping.by.partition(':')[0]}.png"] = _groups(Figure, grouping)
    for name, figure in drawn.items():
        figure.savefig(folder / name, dpi=120, metadata={"Software": None})
    return list(drawn)


def _categories(figure: Any, report: Report) -> Any:
    shown = [c for c in report.categories if c.rating == "Unsafe"][:_MOST_BARS][::-1]
    drawn, axes = _bars(figure, len(shown))
    axes.barh([_label(c.name) for c in shown], [c.n for c in shown], color=_COLOURS["Unsafe"])
    axes.set_xlabel("assessments")
    axes.set_title("Unsafe by category")
    return drawn


def _groups(figure: Any, grouping: Grouping) -> Any:
    """Shares of each group's assessments, so that a small group that is emptied is seen beside a large one."""
    shown = grouping.shown[:_MOST_BARS][::-1]
    drawn, axes = _bars(figure, len(shown))
    parts = {
        "Safe": [g.safe / g.total for g in shown],
        "Unsafe": [g.unsafe / g.total for g in shown],
        "no verdict": [g.without_verdict / g.total for g in shown],
    }
    starts = [0.0] * len(shown)
    for name, shares in parts.items():
        axes.barh(range(len(shown)), shares, left=starts, color=_COLOURS[name], label=name)
        starts = [start + share for start, share in zip(starts, shares, strict=True)]
    axes.set_yticks(range(len(shown)), [f"{_label(g.name)} ({g.total})" for g in shown])
    axes.set_xlim(0, 1)
    axes.legend(loc="lower right")
    axes.set_title(_label(f"By {grouping.by}: the {len(shown)} that lose most"))
    return drawn


def _bars(figure: Any, count: int) -> tuple[Any, Any]:
    drawn = figure(figsize=(9, 1.6 + 0.3 * max(count, 1)), layout="constrained")
    return drawn, drawn.subplots()


def _label(name: str | None) -> str:
    """Short, and as written: a dollar sign would begin a formula."""
    text = "(none)" if name is None else "".join(c if c.isprintable() else "?" for c in name)
    text = text if len(text) <= 48 else "..." + text[-45:]
    return text.replace("$", r"\$")

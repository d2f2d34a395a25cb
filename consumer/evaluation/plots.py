"""The plots of an evaluation as PNG: confusion, slices, ROC, reliability. Needs matplotlib, of the extra `evaluate`."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from consumer.evaluation.report import Evaluation
from consumer.evaluation.sample import EvaluationSample
from consumer.evaluation.scores import reliability, roc

_INK, _UNSAFE, _SAFE, _CALIBRATED, _GRID = "#24292f", "#b3403a", "#4c8c5a", "#2f6f9f", "#d0d7de"
_MOST_SLICES = 40  # more cannot be read

Drawn = tuple[str, str, Any]  # file, what it shows, figure


def draw(evaluation: Evaluation, folder: Path) -> list[tuple[str, str]]:
    """Write the plots; each one's file and what it shows. The same evaluation gives the same bytes."""
    from matplotlib.figure import Figure

    written = []
    for name, title, figure in _drawn(Figure, evaluation):
        figure.savefig(folder / name, dpi=130, metadata={"Software": None})
        written.append((name, title))
    return written


def _drawn(figure: Any, evaluation: Evaluation) -> Iterator[Drawn]:
    sample, report = evaluation.sample, evaluation.document
    yield "confusion.png", "Confusion: what people say and what the verdicts say", _confusion(figure, report)
    _, known = sample.probabilities("p_unsafe")
    unsafe = sample.column("unsafe")
    if known.any() and 0 < unsafe[known].sum() < known.sum():
        yield "roc.png", "ROC: recall against false alarms, by P(unsafe)", _roc(figure, sample, report)
        yield (
            "reliability.png",
            "Reliability: P(unsafe) against the share that is Unsafe",
            _reliability(figure, sample),
        )
    if slices := _slices(report["metrics"]):
        yield "slices.png", "Slices: recall and specificity with 95 % intervals", _slice_plot(figure, slices)


def _styled(axes: Any, *, x: str, y: str) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(color=_GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _confusion(figure: Any, report: Mapping[str, Any]) -> Any:
    counts = report["confusion"]
    cells = np.array([[counts["tp"], counts["fn"]], [counts["fp"], counts["tn"]]], dtype=float)
    rows = cells.sum(axis=1, keepdims=True)
    shares = np.divide(cells, rows, out=np.zeros_like(cells), where=rows > 0)
    drawn = figure(figsize=(4.6, 3.6), layout="constrained")
    axes = drawn.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), n in np.ndenumerate(cells):
        colour = "white" if shares[row, column] > 0.55 else _INK
        axes.text(column, row, f"{n:,.0f}\n{shares[row, column]:.1%}", ha="center", va="center", color=colour)
    axes.set_xticks([0, 1], ["Unsafe", "Safe"])
    axes.set_yticks([0, 1], ["Unsafe", "Safe"])
    axes.set_xlabel("verdict")
    axes.set_ylabel("label")
    for side in axes.spines.values():
        side.set_visible(False)
    return drawn


def _roc(figure: Any, sample: EvaluationSample, report: Mapping[str, Any]) -> Any:
    p, known = sample.probabilities("p_unsafe")
    alarms, hits = zip(*roc(p[known], sample.column("unsafe")[known]), strict=True)
    drawn = figure(figsize=(4.6, 4.2), layout="constrained")
    axes = drawn.subplots()
    axes.plot([0, 1], [0, 1], color=_GRID, linestyle="--")
    auroc = report["metrics"]["auroc"]
    axes.plot(alarms, hits, color=_CALIBRATED, linewidth=1.8, label=f"AUROC {auroc['value']:.3f}")
    counts = report["confusion"]
    if (safe := counts["fp"] + counts["tn"]) and (unsafe := counts["tp"] + counts["fn"]):
        place = (counts["fp"] / safe, counts["tp"] / unsafe)
        axes.plot(*place, marker="o", color=_UNSAFE, linestyle="none", label="as rated")
    _styled(axes, x="false alarms", y="recall")
    axes.legend(loc="lower right", frameon=False)
    return drawn


def _reliability(figure: Any, sample: EvaluationSample) -> Any:
    drawn = figure(figsize=(4.6, 4.2), layout="constrained")
    axes = drawn.subplots()
    axes.plot([0, 1], [0, 1], color=_GRID, linestyle="--")
    unsafe = sample.column("unsafe")
    for name, colour, said in (
        ("p_unsafe", _UNSAFE, "as given"),
        ("p_calibrated", _CALIBRATED, "calibrated"),
    ):
        p, known = sample.probabilities(name)
        if known.any():
            bins = reliability(p[known], unsafe[known])
            axes.plot(
                [each["p"] for each in bins], [each["unsafe"] for each in bins], marker="o", markersize=4,
                color=colour, linewidth=1.4, label=said,
            )  # fmt: skip
    _styled(axes, x="P(unsafe), mean of the bin", y="share labelled Unsafe")
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)
    axes.legend(loc="upper left", frameon=False)
    return drawn


def _slices(found: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    named = [(f"category {name}", each) for name, each in found.get("category", {}).items()]
    for group, values in found.get("group", {}).items():
        named += [(f"{group} {name}", each) for name, each in values.items()]
    return named[:_MOST_SLICES]


def _slice_plot(figure: Any, slices: list[tuple[str, Mapping[str, Any]]]) -> Any:
    drawn = figure(figsize=(7.4, 1.3 + 0.36 * len(slices)), layout="constrained")
    axes = drawn.subplots()
    for offset, name, colour in ((-0.13, "recall", _UNSAFE), (0.13, "specificity", _SAFE)):
        places = [(at, each[name]) for at, (_, each) in enumerate(slices) if each[name]["value"] is not None]
        if places:
            axes.errorbar(
                [e["value"] for _, e in places], [at + offset for at, _ in places],
                xerr=[[e["value"] - e["lower95"] for _, e in places], [e["upper95"] - e["value"] for _, e in places]],
                fmt="o", markersize=4, linewidth=1.3, color=colour, label=name,
            )  # fmt: skip
    axes.set_yticks(range(len(slices)), [f"{_short(name)} (n {each['n']:,})" for name, each in slices])
    axes.invert_yaxis()
    axes.set_xlim(-0.02, 1.02)
    _styled(axes, x="", y="")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False)
    return drawn


def _short(name: str) -> str:
    """As written, and not too long: a dollar sign would begin a formula."""
    return (name if len(name) <= 40 else name[:37] + "...").replace("$", r"\$")

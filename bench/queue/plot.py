"""Draws a result: rates beside their peers, the runtimes, and statements against the size of the ledger."""

from pathlib import Path
from typing import Any

_BARS = {"submissions": 20_000, "assessments": 1_000}


def draw(results: dict[str, Any], out: Path) -> None:
    """What the result holds of the three; nothing where it holds none."""
    import matplotlib  # type: ignore[import-not-found, unused-ignore]  # only who draws needs it

    matplotlib.use("Agg")
    from matplotlib import pyplot  # type: ignore[import-not-found, unused-ignore]  # as above

    panels = [(part, paint) for part, paint in _PANELS.items() if part in results]
    if not panels:
        return
    figure, axes = pyplot.subplots(1, len(panels), figsize=(5.2 * len(panels), 4.6), squeeze=False)
    for (part, paint), each in zip(panels, axes[0], strict=True):
        paint(each, results[part])
    machine = results["machine"]
    figure.suptitle(
        f"{machine['cores']} cores, {machine['cpu']}, commit {machine['commit']}, {machine['date'][:10]}"
    )
    figure.tight_layout()
    figure.savefig(out, dpi=100)
    pyplot.close(figure)


def _submissions(axes: Any, part: dict[str, Any]) -> None:
    rates = {"submit_many": part["per_s"], "apply_async": part["apply_async_per_s"]}
    axes.bar_label(axes.bar(list(rates), list(rates.values()), color=["C0", "0.7"]), fmt="%.0f")
    axes.axhline(_BARS["submissions"], color="C3", linestyle=":")
    axes.set(title="submissions from one process", ylabel="per second")


def _assessments(axes: Any, part: dict[str, Any]) -> None:
    names = {
        "queue_alone": "vetline", "with_fetch_and_decode": "vetline,\nfetch and decode", "celery_no_op": "Celery\nno-op",
        "celery_one_insert": "Celery, one\nORM insert",
    }  # fmt: skip
    rates = {shown: part[name]["per_s"] for name, shown in names.items() if name in part}
    colours = ["0.7" if "Celery" in shown else "C0" for shown in rates]
    axes.bar_label(axes.bar(list(rates), list(rates.values()), color=colours), fmt="%.0f")
    axes.axhline(_BARS["assessments"], color="C3", linestyle=":")
    axes.set(title="assessments, a judge that answers at once", ylabel="per second")


def _runtimes(axes: Any, part: dict[str, Any]) -> None:
    busy = part["cores_busy"]
    axes.bar_label(axes.bar(list(busy), list(busy.values()), color="C1"), fmt="%.2f")
    axes.set(
        title=f"{part['runtimes']} runtimes: {part['per_s']:.0f} of {part['wanted_per_s']} images/s",
        ylabel="cores busy",
    )


def _growth(axes: Any, part: dict[str, Any]) -> None:
    sizes = sorted(int(size) for size in part if size.isdigit())
    for name in part[str(sizes[0])]:
        axes.plot(sizes, [part[str(size)][name] for size in sizes], marker="o", label=name.replace("_", " "))
    axes.set(xscale="log", title="statements as the ledger grows", xlabel="rows", ylabel="median ms")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7)


_PANELS = {"submissions": _submissions, "assessments": _assessments, "runtimes": _runtimes, "growth": _growth}

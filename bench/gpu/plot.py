"""Draws results: images per second against the number in flight, and for each size against the chip's ceiling.

usage: python -m bench.gpu.plot OUT.png RESULT.json ...
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.gpu.ceiling import H100_DENSE_TFLOPS


def draw(results: Sequence[dict[str, Any]], out: Path) -> None:
    """Of runs on one kind of machine, with whole answers."""
    import matplotlib  # type: ignore[import-not-found, unused-ignore]  # only who draws needs it

    matplotlib.use("Agg")
    from matplotlib import pyplot  # type: ignore[import-not-found, unused-ignore]  # as above

    runs = [run for result in results for run in result["runs"] if run["mode"].startswith("full")]
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(13, 5))
    _by_in_flight(left, [run for run in runs if run["size"] == "640x480"])
    _by_size(right, runs)
    machine = results[0]["machine"]
    version, day = machine["packages"]["sglang"], machine["date"][:10]
    figure.suptitle(f"{machine['gpu'].split(',')[0]}, SGLang {version}, {day}, 100 output tokens")
    figure.tight_layout()
    figure.savefig(out, dpi=100)


def _name(run: dict[str, Any]) -> str:
    return f"{run['set_up']}, prompt as token ids" if run["mode"].endswith("-ids") else str(run["set_up"])


def _by_in_flight(axes: Any, runs: Sequence[dict[str, Any]]) -> None:
    for name in dict.fromkeys(map(_name, runs)):
        points = sorted((run["in_flight"], run["images_per_s"]) for run in runs if _name(run) == name)
        axes.plot(*zip(*points, strict=True), marker="o", label=name)
    axes.set(xscale="log", xlabel="requests in flight", ylabel="images/s", title="640x480")
    axes.set_xticks([1, 8, 32, 128, 256, 512], [1, 8, 32, 128, 256, 512])
    axes.grid(alpha=0.3)
    axes.legend()


def _by_size(axes: Any, runs: Sequence[dict[str, Any]]) -> None:
    sizes = sorted({run["size"] for run in runs}, key=lambda size: _of(size, runs)["tera_per_image"])
    best = [_of(size, runs) for size in sizes]
    axes.bar(
        sizes,
        [H100_DENSE_TFLOPS / run["tera_per_image"] for run in best],
        color="0.88",
        label="the chip's arithmetic",
    )
    axes.bar_label(
        axes.bar(sizes, [run["images_per_s"] for run in best], label="the best set-up"), fmt="%.1f"
    )
    axes.set(ylabel="images/s", title="by image size")
    axes.legend()


def _of(size: str, runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The fastest run of this size."""
    return max((run for run in runs if run["size"] == size), key=lambda run: float(run["images_per_s"]))


if __name__ == "__main__":
    draw([json.loads(Path(name).read_text()) for name in sys.argv[2:]], Path(sys.argv[1]))

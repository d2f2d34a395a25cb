"""Measures of P(unsafe): ranking (AUROC, AUPRC, recall at few false alarms), calibration (ECE, Brier), the band.

Points are scikit-learn's where it has them. The bootstrap weighs rows by how often their image was drawn, over scores
that are sorted once; it has fewer draws than that of counts, as each costs a pass over all rows.
"""

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import numpy.typing as npt

from consumer.evaluation.counts import Array
from consumer.evaluation.intervals import Estimate, percentile

DRAWS = 1_000
_MOST_WORK = 20_000_000  # rows times draws: some five seconds; fewer draws above it, never less than FEWEST
FEWEST = 200
ECE_BINS = 15  # of equal mass
FALSE_ALARMS = (0.01, 0.05)

Flags = npt.NDArray[np.bool_]
Codes = npt.NDArray[np.int64]


def score_estimates(
    p: Array, unsafe: Flags, images: Codes, *, seed: int, draws: int = DRAWS
) -> dict[str, Estimate]:
    """p: P(unsafe) of each row; images: the number of its image. {} unless both classes are there."""
    if len(p) == 0 or unsafe.all() or not unsafe.any():
        return {}
    order = np.argsort(-p, kind="stable")
    p, unsafe, images = p[order], unsafe[order], images[order]
    points = _points(p, unsafe)
    drawn: dict[str, list[float]] = {name: [] for name in points}
    measures = _weighted(p, unsafe)
    for weights in _draws(images, seed=seed, draws=_affordable(len(p), draws)):
        for name, measure in measures.items():
            drawn[name].append(measure(weights))
    return {
        name: Estimate(value, *percentile(np.array(drawn[name])), len(p)) for name, value in points.items()
    }


def _affordable(rows: int, draws: int) -> int:
    return max(FEWEST, min(draws, _MOST_WORK // max(rows, 1)))


def _points(p: Array, unsafe: Flags) -> dict[str, float]:
    from sklearn.metrics import average_precision_score, brier_score_loss, log_loss, roc_auc_score

    clipped = np.clip(p, 1e-9, 1 - 1e-9)
    ones = np.ones(len(p))
    return {
        "auroc": float(roc_auc_score(unsafe, p)),
        "auprc": float(average_precision_score(unsafe, p)),
        **{
            f"recall_at_fpr_{round(100 * share)}": recall_at(p, unsafe, share)(ones) for share in FALSE_ALARMS
        },
        "ece": expected_calibration_error(p, unsafe)(ones),
        "brier": float(brier_score_loss(unsafe, p)),
        "log_loss": float(log_loss(unsafe, clipped)),
    }


def _weighted(p: Array, unsafe: Flags) -> Mapping[str, Callable[[Array], float]]:
    """The same as functions of the rows' weights. p falls."""
    clipped = np.clip(p, 1e-9, 1 - 1e-9)
    losses = -np.log(np.where(unsafe, clipped, 1 - clipped))
    squares = (p - unsafe) ** 2
    auroc, auprc = _ranking(p, unsafe)
    return {
        "auroc": auroc,
        "auprc": auprc,
        **{f"recall_at_fpr_{round(100 * share)}": recall_at(p, unsafe, share) for share in FALSE_ALARMS},
        "ece": expected_calibration_error(p, unsafe),
        "brier": lambda weights: float(weights @ squares / weights.sum()),
        "log_loss": lambda weights: float(weights @ losses / weights.sum()),
    }


def _steps(p: Array) -> Codes:
    """The last row of each run of equal scores: thresholds lie there."""
    return np.append(np.flatnonzero(np.diff(p)), len(p) - 1)


def _curve(p: Array, unsafe: Flags) -> Callable[[Array], tuple[Array, Array]]:
    """Weighted numbers of Unsafe and Safe rows at or above each threshold."""
    last = _steps(p)

    def curve(weights: Array) -> tuple[Array, Array]:
        return np.cumsum(weights * unsafe)[last], np.cumsum(weights * ~unsafe)[last]

    return curve


def _ranking(p: Array, unsafe: Flags) -> tuple[Callable[[Array], float], Callable[[Array], float]]:
    curve = _curve(p, unsafe)

    def auroc(weights: Array) -> float:
        hits, alarms = curve(weights)
        if not hits[-1] or not alarms[-1]:
            return float("nan")
        return float(np.trapezoid(np.append(0, hits), np.append(0, alarms)) / (hits[-1] * alarms[-1]))

    def auprc(weights: Array) -> float:
        hits, alarms = curve(weights)
        if not hits[-1]:
            return float("nan")
        flagged = hits + alarms
        precision = np.divide(hits, flagged, out=np.zeros_like(hits), where=flagged > 0)
        return float((np.diff(hits, prepend=0) * precision).sum() / hits[-1])

    return auroc, auprc


def recall_at(p: Array, unsafe: Flags, share: float) -> Callable[[Array], float]:
    """The recall at the lowest threshold that flags at most this share of the Safe rows. p falls."""
    curve = _curve(p, unsafe)

    def recall(weights: Array) -> float:
        hits, alarms = curve(weights)
        if not hits[-1] or not alarms[-1]:
            return float("nan")
        allowed = np.searchsorted(alarms, share * alarms[-1], side="right")
        return float(hits[allowed - 1] / hits[-1]) if allowed else 0.0

    return recall


def expected_calibration_error(p: Array, unsafe: Flags) -> Callable[[Array], float]:
    """The mean distance of P(unsafe) from the share that is Unsafe, over bins of as many rows each. p is sorted."""
    starts = np.unique(np.linspace(0, len(p), min(ECE_BINS, len(p)) + 1).astype(int)[:-1])
    apart = p - unsafe

    def error(weights: Array) -> float:
        return float(np.abs(np.add.reduceat(weights * apart, starts)).sum() / weights.sum())

    return error


def reliability(p: Array, unsafe: Flags) -> list[dict[str, float]]:
    """Bins of as many rows each, from low to high: mean P(unsafe), the share that is Unsafe, and how many rows."""
    order = np.argsort(p, kind="stable")
    bins = np.array_split(order, min(ECE_BINS, len(p)) or 1)
    return [
        {"p": float(p[each].mean()), "unsafe": float(unsafe[each].mean()), "n": len(each)}
        for each in bins
        if len(each)
    ]


def roc(p: Array, unsafe: Flags, *, most: int = 200) -> list[tuple[float, float]]:
    """Points of the ROC curve, false alarms and recall; thinned to at most `most`."""
    from sklearn.metrics import roc_curve

    alarms, hits, _ = roc_curve(unsafe, p)
    kept = np.unique(np.linspace(0, len(alarms) - 1, min(most, len(alarms))).astype(int))
    return [(float(alarms[at]), float(hits[at])) for at in kept]


def _draws(images: Codes, *, seed: int, draws: int) -> Iterator[Array]:
    """How often each row is drawn, when images are drawn with replacement."""
    random = np.random.default_rng(seed)
    _, number = np.unique(images, return_inverse=True)
    count = int(number.max()) + 1
    for _ in range(draws):
        times = np.bincount(random.integers(0, count, size=count), minlength=count)
        yield times[number].astype(float)

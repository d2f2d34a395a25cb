"""Calibration of P(unsafe): a small file for one model, template mode and policy, and the two ways to fit it.

Raw probabilities of a fine-tuned model are too sure of themselves. `platt` fits slope and offset of the
margin (the log odds), `temperature` the slope alone; both keep the order of the items.
"""

import json
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from moderation.errors import BadSetting
from worker.judges.probability import logit, sigmoid

Method = Literal["platt", "temperature"]
LEAST_OF_EACH = 10  # labelled items of each class; fewer say nothing about a slope
_ROUNDS, _ENOUGH = 200, 1e-10
_PRIOR = 1e-3  # weight of the pull towards slope 1, offset 0: keeps perfectly separated labels finite


@dataclass(frozen=True, slots=True)
class Labelled:
    """One verdict that a person has checked. p_unsafe: as the model gave it. image: its rows are not independent."""

    p_unsafe: float
    unsafe: bool
    image: str | None = None


class Calibration(BaseModel):
    """P = sigmoid(slope * logit(p) + offset). policy: as id@revision.

    run: the evaluation run that it rests on; None where it was fitted from a file. slope95, offset95: 95 % intervals.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    mode: str
    policy: str
    method: Method
    slope: float = Field(gt=0, allow_inf_nan=False)
    offset: float = Field(default=0.0, allow_inf_nan=False)
    fitted_on: int = Field(gt=0)  # labelled verdicts
    fitted_at: date
    run: str | None = None
    slope95: tuple[float, float] | None = None
    offset95: tuple[float, float] | None = None

    def apply(self, p_unsafe: float) -> float:
        return sigmoid(self.slope * logit(p_unsafe) + self.offset)

    def fits(self, *, model: str, mode: str, policy: str) -> bool:
        return (self.model, self.mode, self.policy) == (model, mode, policy)

    def write(self, path: Path) -> None:
        path.write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Self:
        """Raises BadSetting, naming the file."""
        try:
            return cls.model_validate(json.loads(path.read_text(encoding="utf-8")))
        except OSError as error:
            raise BadSetting(f"{path}: cannot be read: {error.strerror}") from error
        except (ValueError, ValidationError) as error:
            raise BadSetting(f"{path}: is no calibration that `vetline calibrate` wrote") from error


def read_calibrations(path: Path) -> tuple[Calibration, ...]:
    """The calibration in a file, or those in a folder's *.json. Raises BadSetting."""
    paths = sorted(path.glob("*.json")) if path.is_dir() else [path]
    if not paths:
        raise BadSetting(f"{path}: holds no calibration")
    return tuple(Calibration.read(each) for each in paths)


def fit(items: Sequence[Labelled], method: Method) -> tuple[float, float]:
    """Slope and offset that make the labels likeliest. Raises ValueError for too few of a class."""
    unsafe = sum(item.unsafe for item in items)
    if min(unsafe, len(items) - unsafe) < LEAST_OF_EACH:
        counts = f"{unsafe} Unsafe and {len(items) - unsafe} Safe labels"
        raise ValueError(f"{counts}: at least {LEAST_OF_EACH} of each are needed")
    slope, offset = _fitted(items, method)
    if slope <= 0:
        raise ValueError("the labels run against the probabilities: a calibration would turn the order round")
    return slope, offset


Interval = tuple[float, float]


def intervals(
    items: Sequence[Labelled], slope: float, offset: float, method: Method
) -> tuple[Interval, Interval]:
    """95 % intervals of slope and offset, by the sandwich estimator clustered by image; the offset of `temperature` is 0."""
    h00 = h01 = h11 = 0.0
    scores: defaultdict[object, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for number, item in enumerate(items):
        x = logit(item.p_unsafe)
        p = sigmoid(slope * x + offset)
        weight = p * (1 - p)
        h00, h01, h11 = h00 + weight * x * x, h01 + weight * x, h11 + weight
        score = scores[number if item.image is None else item.image]
        score[0] += (item.unsafe - p) * x
        score[1] += item.unsafe - p
    s00, s01, s11 = (
        math.fsum(score[i] * score[j] for score in scores.values()) for i, j in ((0, 0), (0, 1), (1, 1))
    )
    if method == "temperature":
        return _around(slope, s00 / (h00 * h00)), (0.0, 0.0)
    det = h00 * h11 - h01 * h01
    of_slope = (h11 * h11 * s00 - 2 * h11 * h01 * s01 + h01 * h01 * s11) / (det * det)
    of_offset = (h01 * h01 * s00 - 2 * h01 * h00 * s01 + h00 * h00 * s11) / (det * det)
    return _around(slope, of_slope), _around(offset, of_offset)


def _around(value: float, variance: float) -> Interval:
    half = 1.959963984540054 * math.sqrt(max(variance, 0.0))
    return value - half, value + half


@dataclass(frozen=True, slots=True)
class Band:
    """Where a person decides. error: the share of the others that is wrong, up to error_upper95. abstained: of all."""

    review_from: float
    review_to: float
    error: float
    error_upper95: float
    abstained: float


def narrowest_band(probabilities: Sequence[float], labels: Sequence[bool], *, error: float) -> Band | None:
    """The band around one half, as narrow as can be, outside of which at most `error` are wrong at 95 % confidence.

    probabilities: held out. The upper bound is Wilson's. None where even a band of everything but few leaves too many.
    """
    order = sorted(zip(probabilities, labels, strict=True), key=lambda pair: -abs(pair[0] - 0.5))
    best: Band | None = None
    wrong = 0
    for number, (p, unsafe) in enumerate(order, 1):
        wrong += (p >= 0.5) != unsafe
        distance = abs(p - 0.5)
        last = number == len(order)
        if not last and abs(order[number][0] - 0.5) == distance:
            continue  # as far away as the next: both are outside, or neither
        upper = _wilson_upper(wrong, number)
        if upper <= error:
            inside = 0.0 if last else abs(order[number][0] - 0.5)
            best = Band(0.5 - inside, 0.5 + inside, wrong / number, upper, 1 - number / len(order))
    return best


def _wilson_upper(hits: int, n: int) -> float:
    z, share = 1.959963984540054, hits / n
    middle, spread = share + z * z / (2 * n), z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return (middle + spread) / (1 + z * z / n)


def _fitted(items: Sequence[Labelled], method: Method) -> tuple[float, float]:
    points = [(logit(item.p_unsafe), float(item.unsafe)) for item in items]
    return _newton(points, with_offset=method == "platt")


def _newton(points: Sequence[tuple[float, float]], *, with_offset: bool) -> tuple[float, float]:
    """Maximum likelihood of a logistic regression in one variable, by damped Newton steps."""
    slope, offset = 1.0, 0.0
    for _ in range(_ROUNDS):
        g0, g1 = _PRIOR * (slope - 1), _PRIOR * offset
        h00, h01, h11 = _PRIOR, 0.0, _PRIOR
        for x, y in points:
            p = sigmoid(slope * x + offset)
            weight = p * (1 - p)
            g0, g1 = g0 + (p - y) * x, g1 + (p - y)
            h00, h01, h11 = h00 + weight * x * x, h01 + weight * x, h11 + weight
        if with_offset:
            det = h00 * h11 - h01 * h01
            step = ((h11 * g0 - h01 * g1) / det, (h00 * g1 - h01 * g0) / det)
        else:
            step = (g0 / h00, 0.0)
        damp = min(
            1.0, 1.0 / max(abs(step[0]), abs(step[1]), 1e-12)
        )  # no step longer than 1: far starts overshoot
        slope, offset = slope - damp * step[0], offset - damp * step[1]
        if max(abs(step[0]), abs(step[1])) < _ENOUGH:
            break
    return slope, offset


@dataclass(frozen=True, slots=True)
class Quality:
    """How good probabilities are. log_loss in nats; brier: mean squared error; ece: over ten equal bins."""

    log_loss: float
    brier: float
    ece: float


def quality(probabilities: Sequence[float], labels: Sequence[bool]) -> Quality:
    pairs = list(zip(probabilities, labels, strict=True))
    clipped = [(min(max(p, 1e-9), 1 - 1e-9), y) for p, y in pairs]
    log_loss = -math.fsum(math.log(p if y else 1 - p) for p, y in clipped) / len(pairs)
    brier = math.fsum((p - y) ** 2 for p, y in pairs) / len(pairs)
    bins: dict[int, list[tuple[float, bool]]] = {}
    for p, y in pairs:
        bins.setdefault(min(int(p * 10), 9), []).append((p, y))
    ece = math.fsum(abs(math.fsum(p - y for p, y in each)) for each in bins.values()) / len(pairs)
    return Quality(log_loss, brier, ece)


def held_out(items: Sequence[Labelled], method: Method, *, folds: int = 5) -> list[float]:
    """Each item's calibrated probability from a fit that did not see it."""
    probabilities = [0.0] * len(items)
    by_class = sorted(range(len(items)), key=lambda i: items[i].unsafe)  # so each fold gets both classes
    for fold in range(folds):
        inside = by_class[fold::folds]
        kept = set(inside)
        slope, offset = _fitted([item for i, item in enumerate(items) if i not in kept], method)
        for i in inside:
            probabilities[i] = sigmoid(slope * logit(items[i].p_unsafe) + offset)
    return probabilities

"""Calibration of P(unsafe): a small file for one model, template mode and policy, and the two ways to fit it.

Raw probabilities of a fine-tuned model are too sure of themselves. `platt` fits slope and offset of the
margin (the log odds), `temperature` the slope alone; both keep the order of the items.
"""

import json
import math
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
    """One verdict that a person has checked. p_unsafe: as the model gave it."""

    p_unsafe: float
    unsafe: bool


class Calibration(BaseModel):
    """P = sigmoid(slope * logit(p) + offset). policy: as id@revision."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    mode: str
    policy: str
    method: Method
    slope: float = Field(gt=0, allow_inf_nan=False)
    offset: float = Field(default=0.0, allow_inf_nan=False)
    fitted_on: int = Field(gt=0)  # labelled verdicts
    fitted_at: date

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

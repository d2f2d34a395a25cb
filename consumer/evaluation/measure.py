"""From a sample to its measures: whole, by category and by group. Plain values, as they are stored and shown."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from consumer.evaluation.counts import RATES, Array
from consumer.evaluation.intervals import DRAWS, Estimate, composed_estimates, rate_estimate, share_estimate
from consumer.evaluation.sample import EvaluationSample
from consumer.evaluation.scores import Flags, score_estimates

Measures = dict[str, Any]

_SLICE_DRAWS = 2_000  # there are many slices, and their rows are few
_SLICE_RATES = ("recall", "specificity", "precision", "accuracy")
_CALIBRATED = ("ece", "brier", "log_loss")


@dataclass(frozen=True, slots=True)
class Slice:
    """Rows that share a category or a value of a group. of: `category`, or `group` with the column's name."""

    of: tuple[str, ...]
    name: str
    inside: Flags


def measures(sample: EvaluationSample, groups: Sequence[str], *, seed: int, draws: int = DRAWS) -> Measures:
    """Every measure with value, lower95, upper95 and n; `category` and `group` hold the same for their slices."""
    found = _overall(sample.clusters(), seed=seed, draws=draws)
    found["unassessed"] = asdict(share_estimate(*sample.unassessed()))
    found |= _of_scores(sample, seed=seed)
    found["band"] = _band(sample)
    for each in slices(sample, groups):
        place = found
        for step in each.of:
            place = place.setdefault(step, {})
        place[each.name] = _of_slice(sample, each.inside, seed=seed)
    return found


def confusion(sample: EvaluationSample) -> dict[str, int]:
    total = sample.clusters().sum(axis=0)
    return {name: int(total[at]) for at, name in enumerate(("tp", "fn", "fp", "tn"))}


def slices(sample: EvaluationSample, groups: Sequence[str]) -> Iterator[Slice]:
    """By category, then by each group; rows without a value are in no slice."""
    yield from _slices(("category",), [row.category for row in sample.scored])
    for at, name in enumerate(groups):
        yield from _slices(("group", name), [row.groups[at] for row in sample.scored])


def _slices(of: tuple[str, ...], values: Sequence[str | None]) -> Iterator[Slice]:
    column = np.array(values, dtype=object)
    for name in sorted({value for value in values if value is not None}):
        yield Slice(of, name, column == name)


def _overall(clusters: Array, *, seed: int, draws: int) -> Measures:
    found: Measures = {name: asdict(rate_estimate(clusters, name)) for name in RATES}
    found["flips"] = {"both": found.pop("flips.both")}
    return found | _as_dicts(composed_estimates(clusters, seed=seed, draws=draws))


def _of_slice(sample: EvaluationSample, inside: Flags, *, seed: int) -> Measures:
    clusters = sample.clusters(inside)
    composed = composed_estimates(clusters, seed=seed, draws=_SLICE_DRAWS)
    shown = {name: composed[name] for name in ("balanced_accuracy", "f1")}
    return {"n": int(inside.sum())} | _as_dicts(
        {name: rate_estimate(clusters, name) for name in _SLICE_RATES} | shown
    )


def _of_scores(sample: EvaluationSample, *, seed: int) -> Measures:
    """Over the rows that have a probability; `calibrated` over those that have a calibrated one."""
    found: Measures = {}
    unsafe = sample.column("unsafe")
    for name in ("p_unsafe", "p_calibrated"):
        p, known = sample.probabilities(name)
        estimates = score_estimates(p[known], unsafe[known], sample.images[known], seed=seed)
        if name == "p_unsafe":
            found |= _as_dicts(estimates)
        elif estimates:
            found["calibrated"] = _as_dicts({each: estimates[each] for each in _CALIBRATED})
    return found


def _band(sample: EvaluationSample) -> Measures:
    """How many verdicts ask for a person, and how often those that do not are wrong."""
    outside = ~sample.column("needs_review")
    wrong = np.array([not row.right for row in sample.scored], dtype=bool)
    rows = _by_image(sample, np.ones(len(sample.scored), dtype=bool))
    return _as_dicts(
        {
            "abstained": share_estimate(_by_image(sample, ~outside), rows),
            "error_outside": share_estimate(_by_image(sample, wrong & outside), _by_image(sample, outside)),
        }
    )


def _by_image(sample: EvaluationSample, flags: Flags) -> Array:
    return np.asarray(np.bincount(sample.images, weights=flags.astype(float)), dtype=float)


def _as_dicts(estimates: dict[str, Estimate]) -> Measures:
    return {name: asdict(estimate) for name, estimate in estimates.items()}

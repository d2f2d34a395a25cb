"""Two judges of the same rows, row by row: McNemar's exact test, a paired bootstrap, and Holm over many tests."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from consumer.evaluation.counts import Array, measure
from consumer.evaluation.intervals import DRAWS, bootstrap_counts, percentile


@dataclass(frozen=True, slots=True)
class Discordant:
    """Rows that one alone had right. p: McNemar's exact, two-sided; 1 where there are none."""

    only_before: int
    only_after: int
    p: float


def mcnemar(only_before: int, only_after: int) -> Discordant:
    """The exact binomial test of whether one is right more often than the other."""
    from scipy.stats import binomtest

    n = only_before + only_after
    p = float(binomtest(only_after, n, 0.5).pvalue) if n else 1.0
    return Discordant(only_before, only_after, p)


def holm(ps: Mapping[str, float]) -> dict[str, float]:
    """p values adjusted for there being many of them, by Holm's step-down procedure; in the order given."""
    adjusted: dict[str, float] = {}
    running = 0.0
    for place, name in enumerate(sorted(ps, key=lambda name: (ps[name], name))):
        running = max(running, min(1.0, ps[name] * (len(ps) - place)))
        adjusted[name] = running
    return {name: adjusted[name] for name in ps}


@dataclass(frozen=True, slots=True)
class Difference:
    """After minus before, with a 95 % interval; None where it cannot be known."""

    value: float | None
    lower95: float | None
    upper95: float | None


def paired_differences(
    before: Array, after: Array, names: tuple[str, ...], *, seed: int, draws: int = DRAWS
) -> dict[str, Difference]:
    """Differences of measures. before, after: (images, COUNTS) of the same images: both are drawn together."""
    width = before.shape[1]
    both = np.hstack([before, after])
    total, drawn = both.sum(axis=0), bootstrap_counts(both, seed=seed, draws=draws)
    found = {}
    for name in names:
        value = float(measure(total[width:], name) - measure(total[:width], name))
        apart = measure(drawn[:, width:], name) - measure(drawn[:, :width], name)
        known = not np.isnan(value)
        found[name] = Difference(value, *percentile(apart)) if known else Difference(None, None, None)
    return found

"""Intervals: Wilson's for rates, a bootstrap for the rest, both heeding that rows of one image are not independent.

A cluster is an image. The bootstrap draws whole images with replacement: images whose counts are the same are drawn
together, as one multinomial over kinds of images, which is the same draw and takes no memory for 100,000 images. A
rate's Wilson interval is taken at the effective number of rows: n over the design effect, which is the variance of
the rate between images over what independent rows would have. Where each image has one row that is Wilson's own.
"""

import math
from dataclasses import dataclass

import numpy as np

from consumer.evaluation.counts import COMPOSED, RATES, Array, measure

LEVEL = 0.95
DRAWS = 10_000
_BATCH = 1_000  # draws held at a time
_Z = 1.959963984540054  # the normal quantile at 0.975


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value, between which bounds it lies at 95 %, and of how many rows. None: not to be known from these."""

    value: float | None
    lower95: float | None
    upper95: float | None
    n: int


def wilson(hits: float, n: float) -> tuple[float, float]:
    """Wilson's score interval of hits / n. n need not be whole: it may be an effective number of rows."""
    if n <= 0:
        return math.nan, math.nan
    share, z2 = hits / n, _Z * _Z
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    # At 0 and at 1 the bound is the share itself, but for rounding.
    return max(0.0, min(share, middle - half)), min(1.0, max(share, middle + half))


def design_effect(hits: Array, sizes: Array) -> float:
    """By how much the variance of sum(hits) / sum(sizes) exceeds that of independent rows; at least 1.

    hits, sizes: of each cluster. Linearised (Taylor) variance of a ratio, with the usual m / (m - 1).
    """
    inside = sizes > 0
    hits, sizes = hits[inside], sizes[inside]
    clusters, n = len(sizes), float(sizes.sum())
    if clusters < 2 or n == clusters:
        return 1.0
    share = float(hits.sum()) / n
    plain = share * (1 - share) / n
    if plain == 0:
        return float((sizes**2).sum() / n)  # as if rows of an image always agreed
    residuals = hits - share * sizes
    between = clusters / (clusters - 1) * float((residuals**2).sum()) / n**2
    return max(1.0, between / plain)


def rate_estimate(clusters: Array, name: str) -> Estimate:
    """One of RATES. clusters: (images, COUNTS)."""
    above, below = RATES[name]
    return share_estimate(clusters[:, list(above)].sum(axis=1), clusters[:, list(below)].sum(axis=1))


def share_estimate(hits: Array, sizes: Array) -> Estimate:
    """sum(hits) / sum(sizes), which are those of each image."""
    n = float(sizes.sum())
    if n == 0:
        return Estimate(None, None, None, 0)
    effective = n / design_effect(hits, sizes)
    share = float(hits.sum()) / n
    lower, upper = wilson(share * effective, effective)
    return Estimate(share, lower, upper, int(n))


def bootstrap_counts(clusters: Array, *, seed: int, draws: int = DRAWS) -> Array:
    """(draws, COUNTS): the sums over as many images as there are, drawn with replacement."""
    if not len(clusters):
        return np.zeros((draws, clusters.shape[1]))
    kinds, images = np.unique(clusters, axis=0, return_counts=True)
    random = np.random.default_rng(seed)
    shares = images / images.sum()
    found = np.empty((draws, clusters.shape[1]))
    for start in range(0, draws, _BATCH):
        size = min(_BATCH, draws - start)
        found[start : start + size] = random.multinomial(int(images.sum()), shares, size=size) @ kinds
    return found


def percentile(draws: Array) -> tuple[float | None, float | None]:
    """The middle 95 % of those draws in which the measure is known; None where it is known in fewer than nine of ten."""
    known = draws[~np.isnan(draws)]
    if len(known) < 0.9 * len(draws) or not len(known):
        return None, None
    lower, upper = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(lower), float(upper)


def composed_estimates(clusters: Array, *, seed: int, draws: int = DRAWS) -> dict[str, Estimate]:
    """Each of COMPOSED, from one bootstrap."""
    total, drawn = clusters.sum(axis=0), bootstrap_counts(clusters, seed=seed, draws=draws)
    found = {}
    for name in COMPOSED:
        value = float(measure(total, name))
        rows = int(total[:4].sum())
        if math.isnan(value):
            found[name] = Estimate(None, None, None, rows)
        else:
            found[name] = Estimate(value, *percentile(measure(drawn, name)), rows)
    return found

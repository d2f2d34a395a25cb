"""Intervals are the standard ones, and hold the truth as often as they say: also where images have several rows."""

import math

import numpy as np
import pytest
from scipy.stats import binomtest

from bench.evaluation.coverage import cover
from consumer.evaluation.counts import COUNTS
from consumer.evaluation.intervals import (
    bootstrap_counts,
    composed_estimates,
    design_effect,
    rate_estimate,
    wilson,
)


def images(*rows: tuple[int, int, int, int]) -> np.ndarray:
    return np.array([[*row, *[0] * (len(COUNTS) - 4)] for row in rows], dtype=float)


def test_wilson_is_that_of_scipy() -> None:
    for hits, n in ((312, 360), (421, 464), (0, 10), (10, 10), (1, 3)):
        known = binomtest(hits, n).proportion_ci(method="wilson")
        assert wilson(hits, n) == pytest.approx((known.low, known.high), abs=1e-12)


def test_intervals_of_the_published_half_billion_run() -> None:
    """Recall 82.8 to 89.8, specificity 87.7 to 93.0, balanced accuracy 86.4 to 90.8 per cent."""
    run = images(*[(1, 0, 0, 0)] * 312, *[(0, 1, 0, 0)] * 48, *[(0, 0, 1, 0)] * 43, *[(0, 0, 0, 1)] * 421)
    recall, specificity = rate_estimate(run, "recall"), rate_estimate(run, "specificity")
    assert (recall.lower95, recall.upper95) == pytest.approx((0.828, 0.898), abs=0.001)
    assert (specificity.lower95, specificity.upper95) == pytest.approx((0.877, 0.930), abs=0.001)
    balanced = composed_estimates(run, seed=1)["balanced_accuracy"]
    assert (balanced.lower95, balanced.upper95) == pytest.approx((0.864, 0.908), abs=0.002)


def test_rows_that_repeat_an_image_add_no_certainty() -> None:
    once = images(*[(1, 0, 0, 0)] * 40, *[(0, 1, 0, 0)] * 10)
    thrice = 3 * once
    assert design_effect(thrice[:, 0], thrice[:, :2].sum(axis=1)) == pytest.approx(3, rel=0.03)
    one, three = rate_estimate(once, "recall"), rate_estimate(thrice, "recall")
    assert one.lower95 == pytest.approx(three.lower95, abs=0.004)
    assert (one.n, three.n) == (50, 150)


def test_images_that_are_all_right_still_have_an_interval_as_wide_as_their_number() -> None:
    assert rate_estimate(4 * images(*[(1, 0, 0, 0)] * 25), "recall").lower95 == pytest.approx(
        wilson(25, 25)[0]
    )


def test_draws_of_kinds_of_images_are_draws_of_images() -> None:
    """Mean and spread of the multinomial draw are those of drawing the images one by one."""
    some = images((2, 1, 0, 0), (0, 0, 1, 3), (2, 1, 0, 0), (0, 1, 0, 0), (1, 0, 0, 2))
    drawn = bootstrap_counts(some, seed=3, draws=20_000)
    random = np.random.default_rng(4)
    plain = some[random.integers(0, len(some), size=(20_000, len(some)))].sum(axis=1)
    assert drawn.mean(axis=0) == pytest.approx(plain.mean(axis=0), abs=0.1)
    assert drawn.std(axis=0) == pytest.approx(plain.std(axis=0), abs=0.1)


def test_the_same_seed_draws_the_same_and_another_does_not() -> None:
    some = images(*[(1, 0, 0, 0)] * 30, *[(0, 1, 0, 0)] * 9, *[(0, 0, 1, 0)] * 8, *[(0, 0, 0, 1)] * 30)
    assert composed_estimates(some, seed=1) == composed_estimates(some, seed=1)
    assert composed_estimates(some, seed=1) != composed_estimates(some, seed=2)


def test_a_measure_of_nothing_has_no_interval() -> None:
    safe = images(*[(0, 0, 0, 1)] * 9)
    assert rate_estimate(safe, "recall").value is None
    assert composed_estimates(safe, seed=1)["balanced_accuracy"].lower95 is None


@pytest.mark.parametrize("clustered", [False, True])
def test_nominal_95_per_cent_intervals_hold_the_truth_as_often(clustered: bool) -> None:
    """300 data sets here; bench/evaluation/coverage.py runs 2,000, for 93 to 97 %. This many may miss by 2.5 points."""
    found = cover(data_sets=300, rows=824, clustered=clustered, seed=7, draws=500)
    for name, share in found.items():
        assert 0.95 - 2.58 * math.sqrt(0.95 * 0.05 / 300) - 0.01 <= share <= 1.0, (name, share)
        assert share < 0.995, f"{name}: an interval that always holds says nothing"

"""Measures of P(unsafe): scikit-learn's points, and weights that mean what repeating a row means."""

import numpy as np
import pytest
from sklearn import metrics

from consumer.evaluation.scores import _weighted, recall_at, reliability, roc, score_estimates


def some(rows: int = 400, *, digits: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Scores with ties, falling, and labels that follow them."""
    random = np.random.default_rng(11)
    p = np.sort(np.round(random.beta(0.6, 0.8, size=rows), digits))[::-1]
    return p, random.random(rows) < p


def test_points_are_those_of_scikit_learn() -> None:
    p, unsafe = some()
    found = score_estimates(p, unsafe, np.arange(len(p)), seed=1, draws=200)
    ones = {name: measure(np.ones(len(p))) for name, measure in _weighted(p, unsafe).items()}
    for name, value in ones.items():
        assert found[name].value == pytest.approx(value, abs=1e-9), name
    assert found["auroc"].value == pytest.approx(metrics.roc_auc_score(unsafe, p))


def test_a_weight_of_two_is_a_row_twice() -> None:
    p, unsafe = some(60)
    weights = np.random.default_rng(2).integers(0, 4, size=60).astype(float)
    many_p, many_unsafe = np.repeat(p, weights.astype(int)), np.repeat(unsafe, weights.astype(int))
    weighted = {name: measure(weights) for name, measure in _weighted(p, unsafe).items()}
    assert weighted["auroc"] == pytest.approx(metrics.roc_auc_score(many_unsafe, many_p))
    assert weighted["auprc"] == pytest.approx(metrics.average_precision_score(many_unsafe, many_p))
    assert weighted["brier"] == pytest.approx(metrics.brier_score_loss(many_unsafe, many_p))


def test_recall_at_few_false_alarms_is_that_of_the_roc_curve() -> None:
    p, unsafe = some()
    alarms, hits, _ = metrics.roc_curve(unsafe, p, drop_intermediate=False)
    for share in (0.01, 0.05, 0.5):
        assert recall_at(p, unsafe, share)(np.ones(len(p))) == pytest.approx(hits[alarms <= share].max())


def test_probabilities_that_are_frequencies_have_a_small_calibration_error_and_twisted_ones_a_large() -> None:
    p, unsafe = some(20_000, digits=6)
    images = np.arange(len(p))
    assert score_estimates(p, unsafe, images, seed=1, draws=200)["ece"].value < 0.02
    assert score_estimates(np.sqrt(p), unsafe, images, seed=1, draws=200)["ece"].value > 0.1


def test_intervals_hold_their_point_and_widen_where_images_repeat() -> None:
    p, unsafe = some(600)
    alone = score_estimates(p, unsafe, np.arange(600), seed=3)
    fives = score_estimates(np.repeat(p, 5), np.repeat(unsafe, 5), np.repeat(np.arange(600), 5), seed=3)
    for name in ("auroc", "auprc", "brier"):
        one, five = alone[name], fives[name]
        assert one.lower95 < one.value < one.upper95
        assert five.upper95 - five.lower95 == pytest.approx(one.upper95 - one.lower95, rel=0.15)


def test_one_class_has_no_scores() -> None:
    p, _ = some(20)
    assert score_estimates(p, np.ones(20, dtype=bool), np.arange(20), seed=1) == {}


def test_curves_are_bounded_and_whole() -> None:
    p, unsafe = some(5_000, digits=6)
    assert sum(each["n"] for each in reliability(p, unsafe)) == 5_000
    points = roc(p, unsafe)
    assert len(points) <= 200
    assert (points[0], points[-1]) == ((0.0, 0.0), (1.0, 1.0))

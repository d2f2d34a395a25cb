"""McNemar's exact test, Holm's correction, and differences of two runs over the same images."""

import numpy as np
import pytest

from consumer.evaluation.counts import COUNTS
from consumer.evaluation.paired import holm, mcnemar, paired_differences


@pytest.mark.parametrize(
    ("before", "after", "p"), [(6, 0, 0.031), (24, 11, 0.041), (20, 10, 0.099), (0, 0, 1.0)]
)
def test_mcnemar_is_exact(before: int, after: int, p: float) -> None:
    assert mcnemar(before, after).p == pytest.approx(p, abs=0.0005)
    assert mcnemar(after, before).p == mcnemar(before, after).p


def test_holm_adjusts_the_smallest_most_and_keeps_the_order() -> None:
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03}) == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06})
    assert holm({}) == {}
    assert max(holm({"a": 0.9, "b": 0.8}).values()) == 1.0


def test_a_difference_between_runs_of_the_same_images_is_surer_than_between_others() -> None:
    """Thirty images change from wrong to right, the other 300 stay: the draws go together."""
    rows = np.zeros((330, len(COUNTS)))
    rows[:200, 0], rows[200:, 1] = 1, 1
    better = rows.copy()
    better[200:230, 0], better[200:230, 1] = 1, 0
    found = paired_differences(rows, better, ("recall", "precision", "mcc"), seed=1)
    recall = found["recall"]
    assert recall.value == pytest.approx(30 / 330)
    assert recall.lower95 is not None
    assert recall.upper95 is not None
    assert 0.05 < recall.lower95 < recall.upper95 < 0.13
    assert found["mcc"].value is None  # no Safe row: not known

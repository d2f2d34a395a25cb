"""The published confusion counts give the published figures, and the formulas are scikit-learn's."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics

from consumer.evaluation.counts import COUNTS, TN, TP, measure, pes

UNSAFE, SAFE = 360, 464  # of the 824 rows of LlavaGuard-DS' test split

# LlavaGuard (arXiv 2406.05113), table 3: balanced accuracy, recall, precision, in per cent. F1 follows from the two.
PUBLISHED = {
    "LlavaGuard-0.5B": ((312, 43), (88.70, 86.67, 87.89, 87.28)),
    "LlavaGuard-7B": ((329, 45), (90.84, 91.39, 87.97, 89.65)),
    "QwenGuard-3B": ((316, 48), (88.72, 87.78, 86.81, 87.29)),
    "QwenGuard-7B": ((320, 44), (89.71, 88.89, 87.91, 88.40)),
}


def counts(tp: int, fn: int, fp: int, tn: int) -> np.ndarray:
    return np.array([tp, fn, fp, tn, *[0] * (len(COUNTS) - 4)], dtype=float)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_counts_give_the_published_figures(name: str) -> None:
    (tp, fp), figures = PUBLISHED[name]
    found = counts(tp, UNSAFE - tp, fp, SAFE - fp)
    for measured, published in zip(("balanced_accuracy", "recall", "precision", "f1"), figures, strict=True):
        assert 100 * float(measure(found, measured)) == pytest.approx(published, abs=0.1)


def test_the_published_policy_exception_score_follows_from_its_rate() -> None:
    """Table 3 has a PES of 87.10 for the 0.5B; with its balanced accuracy that is a PER of 85.56."""
    found = counts(312, 48, 43, 421)
    found[COUNTS.index("exception_right")], found[COUNTS.index("exceptions")] = 8556, 10_000
    assert 100 * float(pes(found)) == pytest.approx(87.10, abs=0.1)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_the_formulas_are_those_of_scikit_learn(rows: list[tuple[bool, bool]]) -> None:
    label, said = (np.array(column) for column in zip(*rows, strict=True))
    tn, fp, fn, tp = metrics.confusion_matrix(label, said, labels=[False, True]).ravel()
    found = counts(tp, fn, fp, tn)
    assert float(measure(found, "accuracy")) == pytest.approx(metrics.accuracy_score(label, said))
    expected = {
        "recall": metrics.recall_score(label, said, zero_division=np.nan),
        "precision": metrics.precision_score(label, said, zero_division=np.nan),
        "f1": metrics.f1_score(label, said, zero_division=np.nan),
        "f2": metrics.fbeta_score(label, said, beta=2, zero_division=np.nan),
    }
    for name, value in expected.items():
        assert float(measure(found, name)) == pytest.approx(value, nan_ok=True), name
    if len({*label}) == 2:
        balanced = metrics.balanced_accuracy_score(label, said)
        assert float(measure(found, "balanced_accuracy")) == pytest.approx(balanced)
    if len({*label}) == 2 and len({*said}) == 2:
        assert float(measure(found, "mcc")) == pytest.approx(metrics.matthews_corrcoef(label, said))


def test_what_is_counted_out_of_nothing_is_not_known() -> None:
    none = counts(0, 0, 3, 5)
    assert np.isnan(measure(none, "recall"))
    assert np.isnan(measure(none, "balanced_accuracy"))
    assert none[TP] == 0
    assert none[TN] == 5

"""A sample's measures: what is counted, what is left out, and what slices, pairs and exceptions are."""

import dataclasses

import pytest

from consumer.evaluation.measure import confusion, measures
from consumer.evaluation.sample import EvaluationSample, Judged


def judged(row: str, *, unsafe: bool, said: bool, image: str | None = None, **fields: object) -> Judged:
    made = Judged(row=row, image=image or row, uri=f"https://images.test/{row}.jpg", unsafe=unsafe)
    return dataclasses.replace(made, said_unsafe=said, **fields)


def some() -> list[Judged]:
    """Ten Unsafe of which eight are found, ten Safe of which nine are."""
    return [
        *(judged(f"u{n}", unsafe=True, said=n >= 2, category="O4" if n % 2 else "O2") for n in range(10)),
        *(judged(f"s{n}", unsafe=False, said=n < 1, category="NA") for n in range(10)),
    ]


def test_what_has_no_verdict_is_counted_by_code_and_never_scored() -> None:
    lost = [
        judged("l1", unsafe=True, said=False, code="not_found"),
        judged("l2", unsafe=False, said=False, code="malformed_answer"),
        judged("l3", unsafe=True, said=False, code="not_found"),
        judged("l4", unsafe=True, said=False, code="other_policy"),
    ]
    sample = EvaluationSample([*some(), *lost])
    found = measures(sample, [], seed=1, draws=200)
    assert confusion(sample) == {"tp": 8, "fn": 2, "fp": 1, "tn": 9}
    assert sample.not_scored == {"not_found": 2, "malformed_answer": 1, "other_policy": 1}
    assert found["recall"]["value"] == pytest.approx(0.8)
    assert (found["unassessed"]["value"], found["unassessed"]["n"]) == (pytest.approx(3 / 23), 23)


def test_slices_have_their_own_n_and_intervals() -> None:
    rows = [dataclasses.replace(row, groups=("web" if at % 2 else None,)) for at, row in enumerate(some())]
    found = measures(EvaluationSample(rows), ["source"], seed=1, draws=200)
    assert found["category"]["O2"]["recall"]["n"] == 5
    assert found["category"]["O2"]["recall"]["value"] == pytest.approx(0.8)
    assert found["category"]["NA"]["recall"]["value"] is None
    assert list(found["group"]["source"]) == ["web"]
    assert found["group"]["source"]["web"]["n"] == 10


def test_flips_are_pairs_of_one_image_rated_apart_under_two_policies() -> None:
    rows = [
        judged("1", image="a", unsafe=True, said=True, policy="p1"),
        judged("1_v2", image="a", unsafe=False, said=False, policy="p2", exception=True),
        judged("2", image="b", unsafe=True, said=True, policy="p1"),
        judged("2_v2", image="b", unsafe=False, said=True, policy="p2", exception=True),
        judged("3", image="c", unsafe=True, said=True, policy="p1"),
        judged("3b", image="c", unsafe=False, said=False, policy="p1"),  # people disagree: no flip
    ]
    found = measures(EvaluationSample(rows), [], seed=1, draws=200)
    assert (found["flips"]["both"]["value"], found["flips"]["both"]["n"]) == (0.5, 2)
    assert (found["per"]["value"], found["per"]["n"]) == (0.5, 2)
    balanced = (3 / 3 + 2 / 3) / 2
    assert found["pes"]["value"] == pytest.approx(2 * 0.5 * balanced / (0.5 + balanced))


def test_a_category_is_right_where_the_verdict_names_the_label() -> None:
    rows = [
        judged("1", unsafe=True, said=True, category="O2"),
        judged("2", unsafe=True, said=True, category="O2"),
        judged("3", unsafe=True, said=True),
    ]
    rows[0] = dataclasses.replace(rows[0], said="O2")
    rows[1] = dataclasses.replace(rows[1], said="O3")
    found = measures(EvaluationSample(rows), [], seed=1, draws=200)["category_accuracy"]
    assert (found["value"], found["n"]) == (0.5, 2)


def test_the_band_is_what_asks_for_a_person_and_errors_are_counted_outside_of_it() -> None:
    rows = [dataclasses.replace(row, needs_review=not row.right) for row in some()]
    found = measures(EvaluationSample(rows), [], seed=1, draws=200)["band"]
    assert found["abstained"]["value"] == pytest.approx(3 / 20)
    assert found["error_outside"]["value"] == 0
    assert found["error_outside"]["n"] == 17


def test_an_empty_sample_is_measured_as_not_known() -> None:
    found = measures(EvaluationSample([]), ["source"], seed=1, draws=200)
    assert found["recall"] == {"value": None, "lower95": None, "upper95": None, "n": 0}
    assert "auroc" not in found

"""P(unsafe) from logprobs, and its calibration."""

import math
import random
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moderation.errors import BadSetting, RuntimeFault
from moderation.verdict import Rating
from worker.judges.calibration import Calibration, Labelled, fit, held_out, quality, read_calibrations
from worker.judges.probability import (
    SAFE_ID,
    UNSAFE_ID,
    RatingLogprobs,
    logit,
    p_unsafe,
    rating_position,
    sigmoid,
)

FLOAT32_MIN = -3.4028234663852886e38  # what SGLang gives for a masked token


@given(st.floats(1e-6, 1 - 1e-6), st.floats(-30, 0), st.floats(0.05, 1))
def test_probability_comes_back_whatever_else_took_part_in_the_softmax(
    p: float, rest: float, t: float
) -> None:
    """rest: log of the mass of the two tokens. t: the temperature that the server divided by."""
    margin = logit(p) / t
    found = RatingLogprobs(safe=rest - max(margin, 0), unsafe=rest - max(-margin, 0))
    assert p_unsafe(found, temperature=t) == pytest.approx(p, rel=1e-6)


def test_masked_and_missing_logprobs() -> None:
    assert p_unsafe(RatingLogprobs(-0.1, FLOAT32_MIN)) == 0.0
    assert p_unsafe(RatingLogprobs(FLOAT32_MIN, -0.1)) == 1.0
    assert p_unsafe(RatingLogprobs(FLOAT32_MIN, FLOAT32_MIN)) is None
    assert p_unsafe(RatingLogprobs(None, -0.1)) is None


def test_nan_is_a_fault_of_the_model() -> None:
    with pytest.raises(RuntimeFault, match="NaN"):
        p_unsafe(RatingLogprobs(math.nan, -0.1))


def test_rating_is_looked_for_where_it_was_drawn() -> None:
    assert rating_position([515, 262, 330, UNSAFE_ID, 756, SAFE_ID], Rating.UNSAFE) == 3
    assert rating_position([515, 262, 330, SAFE_ID, 756], Rating.UNSAFE) is None
    assert rating_position([515, 52279, 69, 68], Rating.SAFE) is None


@given(st.floats(-1e6, 1e6))
def test_sigmoid_is_a_probability_everywhere(margin: float) -> None:
    assert 0 <= sigmoid(margin) <= 1


def sample(count: int, *, slope: float, offset: float, seed: int) -> list[Labelled]:
    """Verdicts whose true odds are sigmoid(slope * raw margin + offset)."""
    draw = random.Random(seed)
    margins = [draw.gauss(0, 4) for _ in range(count)]
    return [Labelled(sigmoid(m), draw.random() < sigmoid(slope * m + offset)) for m in margins]


def test_platt_finds_the_slope_and_offset_that_made_the_labels() -> None:
    slope, offset = fit(sample(20_000, slope=0.4, offset=-0.7, seed=1), "platt")
    assert slope == pytest.approx(0.4, abs=0.02)
    assert offset == pytest.approx(-0.7, abs=0.06)


def test_temperature_keeps_one_half_where_it_is() -> None:
    slope, offset = fit(sample(20_000, slope=0.5, offset=0.0, seed=2), "temperature")
    assert slope == pytest.approx(0.5, abs=0.02)
    assert offset == 0


def test_calibration_makes_held_out_probabilities_better() -> None:
    items = sample(2000, slope=0.3, offset=1.0, seed=3)
    labels = [item.unsafe for item in items]
    raw = quality([item.p_unsafe for item in items], labels)
    after = quality(held_out(items, "platt"), labels)
    assert after.log_loss < 0.8 * raw.log_loss
    assert after.ece < 0.3 * raw.ece


def test_perfectly_separated_labels_still_give_a_finite_calibration() -> None:
    items = [Labelled(0.9, True)] * 20 + [Labelled(0.1, False)] * 20
    slope, offset = fit(items, "platt")
    assert math.isfinite(slope)
    assert abs(offset) < 1


@pytest.mark.parametrize(
    ("items", "said"),
    [
        ([Labelled(0.9, True)] * 50, "0 Safe labels"),
        ([Labelled(0.9, True)] * 50 + [Labelled(0.1, False)] * 9, "9 Safe labels"),
        ([Labelled(0.1, True)] * 50 + [Labelled(0.9, False)] * 50, "run against"),
    ],
)
def test_labels_that_cannot_calibrate_are_refused(items: list[Labelled], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        fit(items, "platt")


def calibration(policy: str) -> Calibration:
    return Calibration(
        model="m",
        mode="train",
        policy=policy,
        method="platt",
        slope=0.5,
        offset=1.0,
        fitted_on=99,
        fitted_at=date(2026, 1, 2),
    )


def test_calibration_is_read_back_as_written_and_kept_in_order(tmp_path: Path) -> None:
    for name in ("a@1", "b@2"):
        calibration(name).write(tmp_path / f"{name[0]}.json")
    found = read_calibrations(tmp_path)
    assert found == (calibration("a@1"), calibration("b@2"))
    assert read_calibrations(tmp_path / "a.json") == (calibration("a@1"),)
    assert found[0].fits(model="m", mode="train", policy="a@1")
    assert not found[0].fits(model="m", mode="card", policy="a@1")


@given(st.floats(0, 1), st.floats(0, 1))
def test_calibration_keeps_the_order_of_items(a: float, b: float) -> None:
    low, high = sorted((a, b))
    kept = calibration("p@1")
    assert kept.apply(low) <= kept.apply(high)
    assert kept.apply(0.5) == pytest.approx(sigmoid(1.0))


@pytest.mark.parametrize("text", ["", "{}", '{"model": "m"}', "not json"])
def test_what_is_no_calibration_is_refused_by_its_path(tmp_path: Path, text: str) -> None:
    path = tmp_path / "c.json"
    path.write_text(text)
    with pytest.raises(BadSetting, match=r"c\.json"):
        read_calibrations(path)


def test_missing_calibration_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadSetting, match=r"none\.json"):
        read_calibrations(tmp_path / "none.json")
    with pytest.raises(BadSetting, match="holds no calibration"):
        read_calibrations(tmp_path)

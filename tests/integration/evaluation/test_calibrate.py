"""`vetline calibrate --run`: from the labelled rows of a run, with intervals, and the band that leaves few wrong."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from sqlalchemy import Engine
from typer.testing import CliRunner

from moderation.errors import BadSource
from tests.support.labelled import Made, judged_batch
from worker.judges.calibration import Calibration, Labelled, fit, intervals, narrowest_band
from worker.judges.commands import commands
from worker.judges.probability import sigmoid

Told = Callable[..., Any]


def drawn(seed: int, rows: int = 1500, *, slope: float = 0.5, offset: float = 0.4) -> list[Labelled]:
    random = np.random.default_rng(seed)
    margins = random.normal(0, 3, size=rows)
    unsafe = random.random(rows) < 1 / (1 + np.exp(-(slope * margins + offset)))
    return [Labelled(sigmoid(float(m)), bool(u)) for m, u in zip(margins, unsafe, strict=True)]


def calibrate(*words: str) -> str:
    app = typer.Typer()
    app.add_typer(commands)
    app.command("other")(lambda: None)
    done = CliRunner().invoke(app, ["calibrate", *words])
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.stderr


@pytest.fixture
def run(ledger: Engine, told: Told) -> str:
    rows = [Made(n, item.unsafe, item.p_unsafe >= 0.5, p=item.p_unsafe) for n, item in enumerate(drawn(1))]
    judged_batch(ledger, rows, batch="set")
    found: str = told("evaluate", "batch:set", "--policy", "llavaguard-default", "--draws", "200")["run"]
    return found


def test_a_calibration_says_on_which_run_it_rests_and_its_intervals(run: str, tmp_path: Path) -> None:
    out = tmp_path / "c.json"
    said = calibrate("--run", run, "--out", str(out), "--band-error", "0.2")
    found = Calibration.read(out)
    assert (found.run, found.policy, found.mode, found.fitted_on) == (
        run,
        "llavaguard-default@1",
        "train",
        1500,
    )
    assert found.slope95 is not None
    assert found.offset95 is not None
    assert found.slope95[0] < 0.5 < found.slope95[1]
    assert found.offset95[0] < 0.4 < found.offset95[1]
    assert "VETLINE_SGLANG_REVIEW_FROM=" in said
    with pytest.raises(BadSource, match="not strict@1"):
        calibrate("--run", run, "--policy", "strict@1", "--out", str(out))


def test_the_intervals_hold_the_truth_as_often_as_they_say() -> None:
    held = 0
    for seed in range(200):
        items = drawn(seed, 400)
        slope, offset = fit(items, "platt")
        (lower, upper), _ = intervals(items, slope, offset, "platt")
        held += lower <= 0.5 <= upper
    assert 0.90 <= held / 200 <= 0.99


def test_rows_that_repeat_an_image_make_a_calibration_no_surer() -> None:
    once = drawn(3, 300)
    five = [Labelled(i.p_unsafe, i.unsafe, str(n)) for n, i in enumerate(once) for _ in range(5)]
    alone, often = (intervals(items, 0.5, 0.4, "platt")[0] for items in (once, five))
    assert often == pytest.approx(alone)


def test_outside_of_the_band_no_more_are_wrong_than_was_asked_for() -> None:
    p = [sigmoid(0.5 * margin + 0.4) for margin in np.random.default_rng(5).normal(0, 3, size=3000)]
    labels = list(np.random.default_rng(6).random(3000) < np.array(p))
    band = narrowest_band(p, labels, error=0.1)
    assert band is not None
    outside = [
        (q, unsafe)
        for q, unsafe in zip(p, labels, strict=True)
        if not band.review_from <= q <= band.review_to
    ]
    assert sum((q >= 0.5) != unsafe for q, unsafe in outside) / len(outside) <= 0.1
    assert 0 < band.abstained < 0.8
    assert narrowest_band(p, labels, error=0.5).abstained == 0
    assert narrowest_band([0.5, 0.6], [True, False], error=0.01) is None

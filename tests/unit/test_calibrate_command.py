"""`vetline calibrate`, from a file of labelled verdicts to a file that a judge reads."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from moderation.errors import BadSource
from worker.judges.calibration import Calibration
from worker.judges.commands import commands
from worker.judges.probability import sigmoid

MODEL, POLICY = "LlavaGuard-v1.2-0.5B-OV", "llavaguard-default@1"


@pytest.fixture
def run(tmp_path: Path) -> Any:
    """Run the command as it stands among others; errors of the tree come out as they are raised."""
    app = typer.Typer()
    app.add_typer(commands)
    app.command("other")(lambda: None)

    def run_with(lines: list[dict[str, Any] | str], *more: str) -> tuple[Any, Path]:
        labels, out = tmp_path / "labels.jsonl", tmp_path / "out.json"
        labels.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
        arguments = ["calibrate", str(labels), "--model", MODEL, "--policy", POLICY, "--out", str(out), *more]
        return CliRunner().invoke(app, arguments), out

    return run_with


def verdicts(count: int, **more: Any) -> list[dict[str, Any] | str]:
    draw = random.Random(7)
    margins = [draw.gauss(0, 3) for _ in range(count)]
    return [
        {"p_unsafe": sigmoid(m), "label": "Unsafe" if draw.random() < sigmoid(0.5 * m) else "Safe", **more}
        for m in margins
    ]


def test_labelled_verdicts_become_a_calibration_file(run: Any) -> None:
    result, out = run(verdicts(4000))
    assert result.exit_code == 0, result.output
    found = Calibration.read(out)
    assert found.slope == pytest.approx(0.5, abs=0.05)
    assert (found.model, found.mode, found.policy, found.fitted_on) == (MODEL, "train", POLICY, 4000)
    assert "calibrated, held out" in result.stderr
    assert result.stdout == ""


def test_verdicts_of_another_model_mode_or_policy_are_left_out(run: Any) -> None:
    others = [
        *verdicts(50, model="other"),
        *verdicts(50, template_mode="card"),
        *verdicts(50, policy="strict@1"),
    ]
    result, out = run([*verdicts(200, model=MODEL, template_mode="train", policy=POLICY), *others, ""])
    assert result.exit_code == 0
    assert Calibration.read(out).fitted_on == 200


def test_temperature_fits_no_offset(run: Any) -> None:
    result, out = run(verdicts(200), "--method", "temperature")
    assert result.exit_code == 0
    assert Calibration.read(out).offset == 0


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([], "0 Unsafe and 0 Safe labels"),
        (["not json"], "labels.jsonl:1: is no JSON"),
        (
            [{"p_unsafe": 0.5, "label": "Safe"}, {"p_unsafe": 1.5, "label": "Safe"}],
            "labels.jsonl:2: p_unsafe",
        ),
        ([{"p_unsafe": 0.5, "label": "safe"}], "labels.jsonl:1: label"),
        ([{"label": "Safe"}], "labels.jsonl:1: p_unsafe"),
    ],
)
def test_what_cannot_be_used_is_named_by_its_line(run: Any, lines: list[Any], said: str) -> None:
    result, out = run(lines)
    assert isinstance(result.exception, BadSource)
    assert said in str(result.exception)
    assert not out.exists()

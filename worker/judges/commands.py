"""`vetline calibrate`: fits a calibration of P(unsafe) from verdicts that people have labelled."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from moderation.cli.output import talk
from moderation.errors import BadSource
from moderation.verdict import Rating
from worker.judges.calibration import Calibration, Labelled, Quality, fit, held_out, quality

commands = typer.Typer()


class MethodChoice(StrEnum):
    PLATT = "platt"
    TEMPERATURE = "temperature"


class _LabelledLine(BaseModel):
    """One labelled verdict. What else stands in the line does not matter."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    p_unsafe: float = Field(ge=0, le=1)
    label: Rating
    model: str | None = None
    template_mode: str | None = None
    policy: str | None = None


@commands.command()
def calibrate(
    labels: Annotated[
        Path,
        typer.Argument(
            metavar="LABELS",
            help="Labelled verdicts, one JSON object a line: p_unsafe as the model gave it, and label.",
        ),
    ],
    model: Annotated[str, typer.Option(help="The model that gave them, as the verdicts name it.")],
    policy: Annotated[str, typer.Option(help="The policy revision, such as llavaguard-default@1.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The calibration file to write.")],
    mode: Annotated[str, typer.Option(help="The prompt mode: train, card or card-chatml.")] = "train",
    method: Annotated[MethodChoice, typer.Option(help="platt fits slope and offset, temperature slope.")] = (
        MethodChoice.PLATT
    ),
) -> None:
    """Fit a calibration of P(unsafe) to people's labels.

    It maps P(unsafe) to how often such an image is unsafe, from verdicts that people have labelled. Lines that name
    another model, template_mode or policy are left out.
    """
    items = _read(labels, model=model, mode=mode, policy=policy)
    try:
        slope, offset = fit(items, method.value)
    except ValueError as error:
        raise BadSource(f"{labels}: {error}") from error
    found = Calibration(
        model=model,
        mode=mode,
        policy=policy,
        method=method.value,
        slope=slope,
        offset=offset,
        fitted_on=len(items),
        fitted_at=datetime.now(UTC).date(),
    )
    found.write(out)
    _tell(found, items, out)


def _read(path: Path, *, model: str, mode: str, policy: str) -> list[Labelled]:
    """Raises BadSource, naming the line."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadSource(f"{path}: cannot be read") from error
    wanted = {"model": model, "template_mode": mode, "policy": policy}
    found = []
    for number, text in enumerate(lines, 1):
        if not text.strip():
            continue
        line = _line(text, f"{path}:{number}")
        if all(getattr(line, key) in (None, value) for key, value in wanted.items()):
            found.append(Labelled(line.p_unsafe, line.label is Rating.UNSAFE))
    return found


def _line(text: str, where: str) -> _LabelledLine:
    try:
        return _LabelledLine.model_validate(json.loads(text))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise BadSource(f"{where}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    except ValueError as error:
        raise BadSource(f"{where}: is no JSON") from error


def _tell(found: Calibration, items: Sequence[Labelled], out: Path) -> None:
    labels = [item.unsafe for item in items]
    before = quality([item.p_unsafe for item in items], labels)
    after = quality(held_out(items, found.method), labels)
    talk(
        f"{len(items)} labels, {sum(labels)} of them Unsafe\n"
        f"slope {found.slope:.4f}, offset {found.offset:+.4f}\n"
        f"as the model gave it     {_shown(before)}\n"
        f"calibrated, held out     {_shown(after)}\n"
        f"wrote {out}"
    )


def _shown(found: Quality) -> str:
    return f"log loss {found.log_loss:.4f}   Brier {found.brier:.4f}   calibration error {found.ece:.4f}"

"""`vetline calibrate`: fits a calibration of P(unsafe) from verdicts that people have labelled."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from moderation.cli.open_ledger import opened_ledger
from moderation.cli.output import talk
from moderation.errors import BadSource, InvalidSubmission
from moderation.ledger.evaluation_runs import find_run, items_of
from moderation.verdict import Rating
from worker.judges.calibration import (
    Band,
    Calibration,
    Labelled,
    Quality,
    fit,
    held_out,
    intervals,
    narrowest_band,
    quality,
)

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
    out: Annotated[Path, typer.Option("--out", "-o", help="The calibration file to write.")],
    labels: Annotated[
        Path | None,
        typer.Argument(
            metavar="LABELS",
            help="Labelled verdicts, one JSON object a line: p_unsafe as the model gave it, and label.",
        ),
    ] = None,
    run: Annotated[
        str | None,
        typer.Option(metavar="RUN", help="The labelled rows of this run of `vetline evaluate` instead."),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="The model that gave them, as the verdicts name it; a run says.")
    ] = None,
    policy: Annotated[
        str | None, typer.Option(help="The policy revision, such as llavaguard-default@1; a run says.")
    ] = None,
    mode: Annotated[
        str | None,
        typer.Option(help="The prompt mode: train, card or card-chatml; a run says.", show_default="train"),
    ] = None,
    method: Annotated[MethodChoice, typer.Option(help="platt fits slope and offset, temperature slope.")] = (
        MethodChoice.PLATT
    ),
    band_error: Annotated[
        float | None,
        typer.Option(
            min=0.001, max=0.5, help="Also say which band leaves at most this share wrong, at 95 %."
        ),
    ] = None,
) -> None:
    """Fit a calibration of P(unsafe) to people's labels.

    It maps P(unsafe) to how often such an image is unsafe, from verdicts that people have labelled. Lines that name
    another model, template_mode or policy are left out.
    """
    chosen = _chosen(labels, run, model=model, mode=mode, policy=policy)
    try:
        slope, offset = fit(chosen.items, method.value)
    except ValueError as error:
        raise BadSource(f"{chosen.name}: {error}") from error
    slope95, offset95 = intervals(chosen.items, slope, offset, method.value)
    found = Calibration(
        model=chosen.model,
        mode=chosen.mode,
        policy=chosen.policy,
        method=method.value,
        slope=slope,
        offset=offset,
        fitted_on=len(chosen.items),
        fitted_at=datetime.now(UTC).date(),
        run=chosen.run,
        slope95=slope95,
        offset95=offset95,
    )
    found.write(out)
    _tell(found, chosen.items, out, band_error)


@dataclass(frozen=True, slots=True)
class _Chosen:
    """What is fitted, and on what. run: its id; None for a file."""

    name: str
    items: list[Labelled]
    model: str
    mode: str
    policy: str
    run: str | None = None


def _chosen(labels: Path | None, run: str | None, **said: str | None) -> _Chosen:
    """The labelled verdicts of a file, or of a run. Raises BadSource, InvalidSubmission."""
    if (labels is None) == (run is None):
        raise InvalidSubmission("name a file of labelled verdicts, or a --run; not both")
    if run is not None:
        return _of_run(run, said)
    assert labels is not None
    model, policy, mode = said["model"], said["policy"], said["mode"] or "train"
    if model is None or policy is None:
        raise InvalidSubmission("a file does not say it: name --model and --policy")
    return _Chosen(str(labels), _read(labels, model=model, mode=mode, policy=policy), model, mode, policy)


def _of_run(run: str, said: dict[str, str | None]) -> _Chosen:
    with opened_ledger() as engine:
        found = find_run(engine, run)
        if not found.uniform or found.model is None or found.policy_revision_id is None:
            raise BadSource(f"run {run} is of several models, modes or policies: a calibration is of one")
        for name, value, its in (
            ("model", said["model"], found.model), ("mode", said["mode"], found.template_mode),
            ("policy", said["policy"], found.policy),
        ):  # fmt: skip
            if value not in {None, its}:
                raise BadSource(f"run {run} is of {name} {its}, not {value}")
        items = [
            Labelled(item.p_unsafe, item.unsafe, item.image)
            for item in items_of(engine, found.id)
            if item.code is None and item.p_unsafe is not None
        ]
    return _Chosen(
        f"run {found.id}", items, found.model, found.template_mode or "train", found.policy, str(found.id)
    )


def _read(path: Path, *, model: str, mode: str, policy: str) -> list[Labelled]:
    """Raises BadSource, naming the line."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadSource(f"{path}: cannot be read") from error
    wanted = {"model": model, "template_mode": mode, "policy": policy}
    items = []
    for number, text in enumerate(lines, 1):
        if not text.strip():
            continue
        line = _line(text, f"{path}:{number}")
        if all(getattr(line, key) in (None, value) for key, value in wanted.items()):
            items.append(Labelled(line.p_unsafe, line.label is Rating.UNSAFE))
    return items


def _line(text: str, where: str) -> _LabelledLine:
    try:
        return _LabelledLine.model_validate(json.loads(text))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise BadSource(f"{where}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    except ValueError as error:
        raise BadSource(f"{where}: is no JSON") from error


def _tell(found: Calibration, items: Sequence[Labelled], out: Path, band_error: float | None) -> None:
    labels = [item.unsafe for item in items]
    before = quality([item.p_unsafe for item in items], labels)
    calibrated = held_out(items, found.method)
    talk(
        f"{len(items)} labels, {sum(labels)} of them Unsafe\n"
        f"slope {found.slope:.4f}{_range(found.slope95)}, offset {found.offset:+.4f}{_range(found.offset95)}\n"
        f"as the model gave it     {_shown(before)}\n"
        f"calibrated, held out     {_shown(quality(calibrated, labels))}"
    )
    if band_error is not None:
        talk(_said_of_band(narrowest_band(calibrated, labels, error=band_error), band_error))
    talk(f"wrote {out}")


def _range(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else f" (95 %: {interval[0]:.4f} to {interval[1]:.4f})"


def _said_of_band(band: Band | None, error: float) -> str:
    if band is None:
        return f"no band leaves at most {error:.1%} wrong at 95 %: these labels are too few, or the model too often wrong"
    return (
        f"band: VETLINE_SGLANG_REVIEW_FROM={band.review_from:.4f} VETLINE_SGLANG_REVIEW_TO={band.review_to:.4f}\n"
        f"outside of it {band.error:.2%} are wrong, at most {band.error_upper95:.2%} at 95 %; "
        f"people decide {band.abstained:.1%} of all"
    )


def _shown(quality: Quality) -> str:
    return (
        f"log loss {quality.log_loss:.4f}   Brier {quality.brier:.4f}   calibration error {quality.ece:.4f}"
    )

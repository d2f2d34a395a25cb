"""Commands that read: status and verdicts."""

from dataclasses import asdict
from enum import StrEnum
from typing import Annotated, Any

import typer

from moderation.assessment import State
from moderation.cli.main import UNSAFE_FOUND
from moderation.cli.opening import opened_ledger
from moderation.cli.output import print_csv, print_json, print_jsonl, print_table, talk
from moderation.errors import InvalidSubmission
from moderation.ledger import reading, tally
from moderation.ledger.pauses import Scope, pauses
from moderation.redaction import redact_uri

commands = typer.Typer()

Json = Annotated[bool, typer.Option("--json", help="JSON on stdout.")]
Batch = Annotated[str | None, typer.Option(help="Only this batch.")]
Policy = Annotated[str | None, typer.Option(help="Only this policy id.")]


class Form(StrEnum):
    TABLE = "table"
    JSONL = "jsonl"
    CSV = "csv"


_TABLE = {
    "uri": "image",
    "policy": "policy",
    "rating": "rating",
    "category": "category",
    "p_unsafe": "P(unsafe)",
    "rationale": "rationale",
}
_CSV = (
    "id", "uri", "policy", "batch", "key", "rating", "category", "rationale", "needs_review", "p_unsafe",
    "p_unsafe_calibrated", "judge", "model", "rung", "bytes_sha256", "pixels_sha256", "width", "height",
    "recorded_at",
)  # fmt: skip


@commands.command()
def status(batch: Batch = None, as_json: Json = False) -> None:
    """Counts by state, pace, time left, and what is paused."""
    with opened_ledger() as engine:
        counts = tally.counts(engine, batch=batch)
        pace = tally.pace(engine, batch=batch)
        swept = reading.last_sweep(engine)
        paused = pauses(engine)
    states = {state.value: counts.get(state.value, 0) for state in State}
    still_open = states["queued"] + states["running"]
    left_s = round(still_open / pace) if pace and still_open else None
    if as_json:
        told = {"batch": batch, "states": states, "per_s": pace, "left_s": left_s, "sweep": swept}
        print_json(told | {"pauses": [asdict(pause) for pause in paused]})
        return
    typer.echo("  ".join(f"{state} {count}" for state, count in states.items()))
    typer.echo(f"pace {pace:.1f}/s over the last minute" + (f", {left_s} s left" if left_s else ""))
    for pause in paused:
        what = pause.scope.value if pause.scope is Scope.EVERYTHING else f"{pause.scope.value} {pause.name}"
        why = f": {pause.reason}" if pause.reason else ""
        typer.echo(f"paused: {what}, by {pause.paused_by}, {pause.paused_at:%Y-%m-%d %H:%M} UTC{why}")
    if swept is None:
        typer.echo("swept: never; no worker has run on this ledger")
    else:
        typer.echo(f"swept {swept['age_s']:.0f} s ago by {swept['worker']}")


@commands.command()
def verdicts(
    batch: Batch = None,
    policy: Policy = None,
    unsafe: Annotated[bool, typer.Option("--unsafe", help="Only images rated Unsafe.")] = False,
    form: Annotated[Form, typer.Option("--format", help="How to show them.")] = Form.TABLE,
    as_json: Json = False,
    fail_on: Annotated[str | None, typer.Option(help="`unsafe`: exit 4 if any image is.")] = None,
) -> None:
    """Verdicts, in the order they were recorded."""
    if fail_on not in {None, "unsafe"}:
        raise InvalidSubmission(f"--fail-on takes unsafe, not {fail_on!r}")
    seen: list[bool] = []

    def shown(row: dict[str, Any]) -> dict[str, Any]:
        if not seen and row["rating"] == "Unsafe":
            seen.append(True)
        return row | {"uri": redact_uri(row["uri"])}

    with opened_ledger() as engine:
        rows = (
            shown(row)
            for row in reading.verdicts(
                engine, batch=batch, policy=policy, rating="Unsafe" if unsafe else None
            )
        )
        if as_json or form is Form.JSONL:
            print_jsonl(rows)
        elif form is Form.CSV:
            print_csv(rows, _CSV)
        elif not print_table(rows, _TABLE, style=lambda r: "red" if r["rating"] == "Unsafe" else None):
            talk("no verdicts")
    if fail_on and seen:
        raise typer.Exit(UNSAFE_FOUND)

"""Commands that read: status, verdicts, failed, explain."""

from dataclasses import asdict
from enum import StrEnum
from typing import Annotated, Any
from uuid import UUID

import typer

from moderation.assessment import State
from moderation.cli.main import FAILED, UNSAFE_FOUND
from moderation.cli.opening import opened_ledger
from moderation.cli.output import print_csv, print_json, print_jsonl, print_table, talk
from moderation.errors import InvalidSubmission
from moderation.ledger import reading, tally
from moderation.ledger.pauses import Scope, pauses
from moderation.ledger.retry import Selection
from moderation.redaction import redact_uri

commands = typer.Typer()

Json = Annotated[bool, typer.Option("--json", help="JSON on stdout.")]
Batch = Annotated[str | None, typer.Option(help="Only this batch.")]
Policy = Annotated[str | None, typer.Option(help="Only this policy id.")]
Code = Annotated[str | None, typer.Option(help="Only failures with this code.")]


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


@commands.command()
def failed(
    code: Code = None, batch: Batch = None, policy: Policy = None, limit: int = 100, as_json: Json = False
) -> None:
    """What failed: counts by code, then the items, oldest first."""
    selection = Selection(code=code, batch=batch, policy=policy)
    with opened_ledger() as engine:
        counts = reading.failure_counts(engine, selection)
        rows = [
            row | {"uri": redact_uri(row["uri"])} for row in reading.failures(engine, selection, limit=limit)
        ]
    if as_json:
        print_json({"counts": counts, "items": rows})
        return
    if not counts:
        talk("nothing failed")
        return
    typer.echo("  ".join(f"{code} {count}" for code, count in counts.items()))
    print_table(
        rows,
        {
            "id": "id",
            "error_code": "code",
            "uri": "image",
            "error_detail": "what happened",
            "attempt": "attempts",
        },
    )


@commands.command()
def explain(id_: Annotated[str, typer.Argument(metavar="ID")], as_json: Json = False) -> None:
    """The whole story of one assessment: every attempt, the raw answers, the policy's text, the digests."""
    try:
        wanted = UUID(id_)
    except ValueError:
        raise InvalidSubmission(f"{id_!r} is not an assessment's id") from None
    with opened_ledger() as engine:
        story = reading.story(engine, wanted)
    if story is None:
        talk(f"no assessment {wanted}")
        raise typer.Exit(FAILED)
    story["uri"] = redact_uri(story["uri"])
    if as_json:
        print_json(story)
    else:
        _tell(story)


def _tell(story: dict[str, Any]) -> None:
    verdict = story["verdict"]
    typer.echo(f"{story['id']}  {story['state']}  {story['policy']}\n{story['uri']}")
    typer.echo(f"submitted {story['created_at']:%Y-%m-%d %H:%M:%S} UTC, batch {story['batch'] or '-'}")
    if story["reassesses"]:
        typer.echo(f"judges again the image of {story['reassesses']}")
    if story["error_code"]:
        typer.echo(f"last error: {story['error_code']}: {story['error_detail']}")
    for attempt in story["attempts"]:
        why = f": {attempt['error_code']}: {attempt['error_detail']}" if attempt["error_code"] else ""
        typer.echo(f"  attempt {attempt['attempt']} {attempt['outcome']} by {attempt['worker']}{why}")
        for ask in attempt["asks"] or ():
            typer.echo(f"    {ask['rung']} ({ask['elapsed_ms']:.0f} ms): {ask['problem'] or 'parsed'}")
    if verdict:
        typer.echo(f"verdict: {verdict['rating']}, {verdict['category']}\n  {verdict['rationale']}")
        typer.echo(
            f"  {verdict['judge']} {verdict['model']} on {verdict['runtime']} {verdict['runtime_version']}\n"
            f"  weights {verdict['weights_sha256']}\n  prompt {verdict['prompt_sha256']}\n"
            f"  policy text {story['policy_sha256']}\n  image bytes {verdict['bytes_sha256']}\n"
            f"  pixels {verdict['pixels_sha256']}"
        )

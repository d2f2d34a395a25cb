"""`vetline explain`: the whole story of one image under one policy."""

from typing import Annotated, Any
from uuid import UUID

import typer
from pydantic_core import to_json

from moderation.assessment import Priority
from moderation.cli.main import FAILED
from moderation.cli.open_ledger import opened_ledger
from moderation.cli.options import Json
from moderation.cli.output import print_json, say, talk, visible
from moderation.errors import InvalidSubmission
from moderation.ledger.explain import explanation
from moderation.redaction import redact_uri
from moderation.services.resolve import known_flower

commands = typer.Typer()

Story = dict[str, Any]


@commands.command()
def explain(
    id_: Annotated[str, typer.Argument(metavar="ID")],
    policy_text: Annotated[
        bool, typer.Option("--policy-text", help="The policy too, as the model read it.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Tell the whole story of one assessment.

    Every attempt, the raw answers, the verdict with its digests, and related assessments.
    """
    try:
        wanted = UUID(id_)
    except ValueError:
        raise InvalidSubmission(f"{id_!r} is not an assessment's id") from None
    with opened_ledger() as engine:
        found = explanation(engine, wanted)
    if found is None:
        talk(f"no assessment {wanted}")
        raise typer.Exit(FAILED)
    found["uri"] = redact_uri(found["uri"])
    flower = known_flower()
    found["flower_url"] = f"{flower}task/{found['id']}" if flower else None
    if as_json:
        print_json(found)
        return
    told_text = found.pop("policy_text")
    found = visible(found)
    _tell_assessment(found)
    _tell_attempts(found)
    if found["verdict"]:
        _tell_verdict(found["verdict"])
    for other in found["related"]:
        say(f"{other['relation']}: {other['id']}  {other['state']}  {other['policy']}")
    if policy_text:
        say(f"\n{told_text}")


def _tell_assessment(found: Story) -> None:
    say(f"{found['id']}  {found['state']}  {found['policy']}\n{found['uri']}")
    about = [f"batch {found['batch'] or '-'}", f"priority {Priority(found['priority']).name.lower()}"]
    about += [f"{name} {found[name]}" for name in ("tenant", "key") if found[name] is not None]
    say(f"submitted {found['created_at']:%Y-%m-%d %H:%M:%S} UTC, {', '.join(about)}")
    say(f"policy text {found['policy_sha256']}")
    if found["metadata"] is not None:
        say(f"metadata {to_json(found['metadata']).decode()}")
    if found["flower_url"]:
        say(f"in Flower: {found['flower_url']}")
    if found["state"] == "running":
        say(f"in hand at {found['worker']} since {found['claimed_at']:%Y-%m-%d %H:%M:%S} UTC")
    if found["error_code"]:
        say(f"last error: {found['error_code']}: {found['error_detail']}")


def _tell_attempts(found: Story) -> None:
    for attempt in found["attempts"]:
        why = f": {attempt['error_code']}: {attempt['error_detail']}" if attempt["error_code"] else ""
        say(f"  attempt {attempt['attempt']} {attempt['outcome']} by {attempt['worker']}{why}")
        if attempt["timings_ms"]:
            steps = ", ".join(f"{step} {ms:.0f} ms" for step, ms in attempt["timings_ms"].items())
            say(f"    {attempt['ended_at']:%Y-%m-%d %H:%M:%S} UTC, {steps}")
        for ask in attempt["asks"] or ():
            say(f"    {ask['rung']} ({ask['elapsed_ms']:.0f} ms): {ask['problem'] or 'parsed'}")
            say(f"      {ask['raw']!r}" if ask.get("raw") is not None else "      no raw answer kept")


def _tell_verdict(verdict: dict[str, Any]) -> None:
    review = ", needs review" if verdict["needs_review"] else ""
    say(f"verdict: {verdict['rating']}, {verdict['category']}{review}\n  {verdict['rationale']}")
    if verdict["p_unsafe"] is not None:
        calibrated = verdict["p_unsafe_calibrated"]
        frequency = f", {calibrated:.3f} calibrated" if calibrated is not None else ""
        say(f"  P(unsafe) {verdict['p_unsafe']:.3f}{frequency}")
    say(
        f"  {verdict['judge']} {verdict['model']} on {verdict['runtime']} {verdict['runtime_version']}\n"
        f"  weights {verdict['weights_sha256']}\n  prompt {verdict['prompt_sha256']}\n"
        f"  image bytes {verdict['bytes_sha256']}\n  pixels {verdict['pixels_sha256']}"
    )

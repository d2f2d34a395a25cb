"""`vetline explain`: the whole story of one image under one policy."""

from typing import Annotated, Any
from uuid import UUID

import typer
from pydantic_core import to_json

from moderation.assessment import Priority
from moderation.cli.open_ledger import opened_ledger
from moderation.cli.options import Json
from moderation.cli.output import print_json, say, talk, visible
from moderation.errors import InvalidSubmission
from moderation.exit_codes import FAILED
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
        story = explanation(engine, wanted)
    if story is None:
        talk(f"no assessment {wanted}")
        raise typer.Exit(FAILED)
    story["uri"] = redact_uri(story["uri"])
    flower = known_flower()
    story["flower_url"] = f"{flower}task/{story['id']}" if flower else None
    if as_json:
        print_json(story)
        return
    text = story.pop("policy_text")
    story = visible(story)
    _tell_assessment(story)
    _tell_attempts(story)
    if story["verdict"]:
        _tell_verdict(story["verdict"])
    for other in story["related"]:
        say(f"{other['relation']}: {other['id']}  {other['state']}  {other['policy']}")
    if policy_text:
        say(f"\n{text}")


def _tell_assessment(story: Story) -> None:
    say(f"{story['id']}  {story['state']}  {story['policy']}\n{story['uri']}")
    about = [f"batch {story['batch'] or '-'}", f"priority {Priority(story['priority']).name.lower()}"]
    about += [f"{name} {story[name]}" for name in ("tenant", "key") if story[name] is not None]
    say(f"submitted {story['created_at']:%Y-%m-%d %H:%M:%S} UTC, {', '.join(about)}")
    say(f"policy text {story['policy_sha256']}")
    if story["metadata"] is not None:
        say(f"metadata {to_json(story['metadata']).decode()}")
    if story["flower_url"]:
        say(f"in Flower: {story['flower_url']}")
    if story["state"] == "running":
        say(f"in hand at {story['worker']} since {story['claimed_at']:%Y-%m-%d %H:%M:%S} UTC")
    if story["error_code"]:
        say(f"last error: {story['error_code']}: {story['error_detail']}")


def _tell_attempts(story: Story) -> None:
    for attempt in story["attempts"]:
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
    if verdict["views_differ"] is not None:
        say(f"  viewed differently: its views differ by {verdict['views_differ']:.1f} levels of 255")
    if verdict["review_reasons"]:
        say(f"  needs review for: {', '.join(verdict['review_reasons'])}")
    say(
        f"  {verdict['judge']} {verdict['model']} on {verdict['runtime']} {verdict['runtime_version']}\n"
        f"  weights {verdict['weights_sha256']}\n  prompt {verdict['prompt_sha256']}\n"
        f"  image bytes {verdict['bytes_sha256']}\n  pixels {verdict['pixels_sha256']}"
    )

"""`vetline shadow`: judge a share of live items under a candidate as well, without effect, and see what would change."""

from typing import Annotated, Any

import typer

from moderation.cli.open_ledger import opened_ledger
from moderation.cli.options import Json
from moderation.cli.output import print_json, print_table, say, talk
from moderation.cli.signature import login_name, plain_words
from moderation.ledger import shadow as ledger

commands = typer.Typer()
_group = typer.Typer(help="Judge a share under a candidate too, without effect.", no_args_is_help=True)
commands.add_typer(_group, name="shadow")

Ref = Annotated[str, typer.Argument(metavar="ID@REV", help="The candidate: a revision that is not live.")]
By = Annotated[str | None, typer.Option(help="Who does it; your login name if left out.")]


def _who(by: str | None) -> str:
    return plain_words("--by", by if by is not None else login_name())


@_group.command()
def start(
    ref: Ref,
    share: Annotated[
        float, typer.Option(min=0.0001, max=1, help="Of the policy's live items, 0 to 1.")
    ] = 0.05,
    by: By = None,
) -> None:
    """Begin to judge a share of live items under the candidate.

    They are judged at low priority; their verdicts are in no feed, webhook, export or draft.

    Each costs a fetch and an answer more.
    """
    with opened_ledger() as engine:
        made = ledger.start_shadow(engine, ref, share, by=_who(by))
    talk(
        f"{made.ref} is judged in shadow for {share:.2%} of {made.policy}'s items; `vetline shadow report {made.ref}`"
    )


@_group.command()
def stop(ref: Ref, by: By = None) -> None:
    """Stop drawing items; what is queued is still judged."""
    with opened_ledger() as engine:
        stopped = ledger.stop_shadow(engine, ref, by=_who(by))
    talk(f"{ref} is in shadow no more" if stopped else f"{ref} was not in shadow")


@_group.command("list")
def list_(as_json: Json = False) -> None:
    """List shadows, those that ended too."""
    with opened_ledger() as engine:
        found = ledger.shadows(engine)
    if as_json:
        print_json(found)
        return
    rows = (
        {"ref": s.ref, **{n: getattr(s, n) for n in ("share", "started_by", "started_at", "stopped_at")}}
        for s in found
    )
    heads = {
        "ref": "candidate",
        "share": "share",
        "started_by": "by",
        "started_at": "since",
        "stopped_at": "until",
    }
    print_table(rows, heads)


@_group.command()
def report(
    ref: Ref,
    limit: Annotated[int, typer.Option(min=0, help="List at most so many flipped items.")] = 50,
    as_json: Json = False,
) -> None:
    """Show what would change, with intervals, and the cost."""
    from consumer.cli.evaluate import check_installed

    check_installed()
    from consumer.evaluation.shadowed import summarise

    with opened_ledger() as engine:
        shadow = ledger.shadow_of(engine, ref)
        found = summarise(ledger.seen(engine, shadow, limit=limit))
    if as_json:
        print_json({"candidate": shadow.ref, "share": shadow.share, **found})
        return
    for line in _lines(found):
        say(line)
    heads = {
        "id": "id",
        "uri": "image",
        "was": "is live as",
        "was_for": "for",
        "is_now": "in shadow",
        "is_for": "for",
    }
    print_table(found["flips"], heads, style=lambda row: "red" if row["is_now"] == "Unsafe" else None)


def _lines(found: dict[str, Any]) -> list[str]:
    cost = found["cost"]
    lines = [f"{found['pairs']} items judged under both"]
    for name, said in (
        ("to_unsafe", "Safe -> Unsafe"),
        ("to_safe", "Unsafe -> Safe"),
        ("change_of_unsafe", "change of the share that is Unsafe"),
    ):
        each = found[name]
        if each["value"] is not None:
            lower, upper = each["lower95"], each["upper95"]
            interval = "" if lower is None else f"  (95 %: {lower:+.2%} to {upper:+.2%})"
            lines.append(f"{said}: {each['value']:+.2%}{interval}")
    lines.append(f"McNemar's exact p {found['mcnemar_p']:.4f}")
    states = ", ".join(f"{row['error_code'] or row['state']} {row['n']}" for row in found["states"])
    lines.append(f"items in shadow: {states or 'none yet'}")
    lines.append(
        f"cost: {cost['judge_s']:.1f} s of judging, {cost['fetch_s']:.1f} s of fetching, {cost['prompt_tokens']:,} tokens "
        f"read, {cost['answer_tokens']:,} written"
    )
    return lines

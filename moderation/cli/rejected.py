"""`vetline rejected`: messages of plain Celery clients of which no row could be made."""

from typing import Annotated, Any

import typer
from sqlalchemy import Engine

from moderation.assessment import Priority, Submission
from moderation.cli.open_ledger import opened_ledger
from moderation.cli.options import Json
from moderation.cli.output import print_json, print_table, say, talk
from moderation.errors import InvalidSubmission, Misuse
from moderation.exit_codes import FAILED, SOME_FAILED
from moderation.ledger import rejected
from moderation.ledger.policies import pin
from moderation.ledger.submit import new_id, submit

commands = typer.Typer()
_rejected = typer.Typer(
    help="List, mend and drop messages that were rejected.\n\n"
    "They are of plain Celery clients, and no assessment could be made of them.",
    no_args_is_help=True,
)
commands.add_typer(_rejected, name="rejected")

Numbers = Annotated[list[int] | None, typer.Argument(metavar="ID", help="These, as `list` numbers them.")]
OfCode = Annotated[str | None, typer.Option("--code", help="All with this reason, such as unknown_policy.")]
_COLUMNS = {
    "id": "id",
    "code": "reason",
    "detail": "what is wrong",
    "queue": "list",
    "task_id": "task id",
    "policy": "policy",
    "times": "times",
    "last_at": "last (UTC)",
}


@_rejected.command("list")
def list_(
    code: OfCode = None,
    sent: Annotated[bool, typer.Option("--resubmitted", help="With those that were sent again.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="Messages shown.")] = 100,
    as_json: Json = False,
) -> None:
    """List what was rejected, by reason, newest first."""
    with opened_ledger() as engine:
        counts = rejected.rejected_counts(engine)
        rows = rejected.rejected_messages(engine, code=code, resubmitted=sent, limit=limit)
    if as_json:
        print_json({"counts": counts, "messages": rows})
        return
    if not rows:
        talk("nothing was rejected" if code is None else f"nothing was rejected as {code}")
        return
    say("  ".join(f"{reason} {count}" for reason, count in counts.items()) or "all were sent again")
    say()
    print_table(rows, _COLUMNS)
    if (total := sum(counts.values())) > len(rows):
        talk(f"{len(rows)} of {total} shown; --limit shows more")


@_rejected.command()
def show(
    id_: Annotated[int, typer.Argument(metavar="ID", help="As `list` numbers it.")], as_json: Json = False
) -> None:
    """Show one message, without its secrets."""
    with opened_ledger() as engine:
        found = rejected.rejected_message(engine, id_)
    if found is None:
        talk(f"no rejected message {id_}")
        raise typer.Exit(FAILED)
    if as_json:
        print_json(found)
        return
    body = found.pop("body")
    for name, value in found.items():
        if value is not None:
            say(f"{name.removesuffix('_').replace('_', ' ')}: ", value)
    say("\n", body)


@_rejected.command()
def resubmit(
    ids: Numbers = None,
    code: OfCode = None,
    uri: Annotated[str | None, typer.Option(help="In place of the message's own; for one message.")] = None,
    policy: Annotated[str | None, typer.Option(help="In place of the message's own.")] = None,
    as_json: Json = False,
) -> None:
    """Submit messages again, mended.

    The task id stays the key, so one that came again meanwhile is the same assessment. One that cannot be accepted is
    named with the reason, and the exit code is 3.
    """
    if not ids and code is None:
        raise InvalidSubmission("say which: an ID, or --code")
    if uri is not None and (code is not None or len(ids or ()) != 1):
        raise InvalidSubmission("--uri is for one message: give its ID")
    with opened_ledger() as engine:
        found = rejected.messages_to_send(engine, ids or [], code)
        results = [_sent(engine, message, uri, policy) for message in found]
    missing = sorted({*(ids or ())} - {message["id"] for message in found})
    results += [{"id": id_, "assessment_id": None, "problem": "no such message"} for id_ in missing]
    if as_json:
        print_json(results)
    for result in [] if as_json else results:
        what = (
            f"is {result['assessment_id']}" if result["problem"] is None else f"not sent: {result['problem']}"
        )
        say(f"{result['id']} {what}")
    if any(result["problem"] for result in results):
        raise typer.Exit(SOME_FAILED)


@_rejected.command()
def drop(
    ids: Numbers = None,
    code: OfCode = None,
    sent: Annotated[bool, typer.Option("--resubmitted", help="All that were sent again.")] = False,
    as_json: Json = False,
) -> None:
    """Delete rejected messages for good."""
    if not ids and code is None and not sent:
        raise InvalidSubmission("say which: an ID, --code or --resubmitted")
    with opened_ledger() as engine:
        count = rejected.drop_rejected(engine, ids=ids or [], code=code, resubmitted=sent)
    if as_json:
        print_json({"dropped": count})
    else:
        talk(f"{count} dropped")


def _sent(engine: Engine, message: dict[str, Any], uri: str | None, policy: str | None) -> dict[str, Any]:
    """What became of it: the id of its assessment, or why there is none."""
    told: dict[str, Any] = {"id": message["id"], "assessment_id": None, "problem": None}
    try:
        submission = _submission(message, uri, policy)
        pinned = pin(engine, [submission.policy])
        (ticket,) = submit(engine, [submission], pinned, [new_id()])
    except (Misuse, ValueError) as exc:
        return told | {"problem": str(exc).splitlines()[0]}
    rejected.note_resubmitted(engine, message["id"], ticket.id)
    return told | {"assessment_id": ticket.id}


def _submission(message: dict[str, Any], uri: str | None, policy: str | None) -> Submission:
    """Raises InvalidSubmission where something is missing; ValueError for what cannot be accepted."""
    named = {"uri": uri or message["uri"], "policy": policy or message["policy"]}
    if lacking := [name for name, value in named.items() if value is None]:
        raise InvalidSubmission(f"it names no {lacking[0]}: give --{lacking[0]}")
    return Submission(
        uri=named["uri"],
        policy=named["policy"],
        key=f"celery:{message['task_id'] or message['sha256']}",
        priority=Priority(message["priority"]),
        not_before=message["not_before"],  # what has expired was asked for once more, so its expiry is gone
    )

"""`vetline webhook`: endpoints that verdicts are sent to."""

from typing import Annotated, Any
from uuid import UUID

import typer

from moderation.cli.feed_options import Category, Name, Unsafe, shown_filter
from moderation.cli.open_ledger import opened_ledger
from moderation.cli.options import Batch, Json, Policy
from moderation.cli.output import print_json, print_table, say, talk
from moderation.cli.places import AnyName, BackTo, Repair, place_named, verify
from moderation.errors import InvalidWebhook
from moderation.exit_codes import FAILED
from moderation.ledger import webhooks
from moderation.ledger.feed import Filter
from moderation.ledger.verification import ReaderKind
from moderation.redaction import redact_uri
from moderation.webhook import new_secret, probe_message

commands = typer.Typer()
_webhook = typer.Typer(help="Send verdicts to URLs, signed and in order.", no_args_is_help=True)
commands.add_typer(_webhook, name="webhook")

_OVERLAP_H = 24.0
_TABLE = {
    "name": "webhook",
    "url": "to",
    "shown_filter": "sends",
    "state": "state",
    "delivered": "delivered",
    "set_aside": "set aside",
    "last_error": "last error",
}
_ASIDE = {"assessment_id": "assessment", "tries": "tries", "error": "last error", "set_aside_at": "set aside"}


@_webhook.command()
def add(
    name: Name,
    url: Annotated[str, typer.Argument(metavar="URL")],
    unsafe: Unsafe = False,
    policy: Policy = None,
    category: Category = None,
    batch: Batch = None,
    after: Annotated[str, typer.Option(help="Begin behind this cursor, at `start`, or `now`.")] = "now",
    as_json: Json = False,
) -> None:
    """Send verdicts to a URL from now on.

    Prints, this once, the secret that its messages are signed with.
    """
    from worker.webhooks.post import check_url
    from worker.webhooks.settings import WebhookSettings

    check_url(url, WebhookSettings())
    if not name.isprintable() or not 0 < len(name) <= 200:
        raise InvalidWebhook("a webhook's name is one printable line of at most 200 characters")
    wanted = Filter(policy=policy, rating="Unsafe" if unsafe else None, category=category, batch=batch)
    secret = new_secret()
    with opened_ledger() as engine:
        start = place_named(engine, after)
        webhooks.add_webhook(engine, name, url, secret=secret, wanted=wanted, start=start)
    _print_secret(name, secret, as_json)


@_webhook.command("list")
def list_(as_json: Json = False) -> None:
    """List endpoints: their state and what was set aside."""
    with opened_ledger() as engine:
        rows = [row | {"url": redact_uri(row["url"])} for row in webhooks.webhooks(engine)]
    if as_json:
        print_json(rows)
    elif not print_table((row | _shown(row) for row in rows), _TABLE):
        talk("no webhooks")


@_webhook.command()
def pause(
    name: Name,
    reason: Annotated[str, typer.Option(help="Why; shown in the list.")] = "by hand",
    as_json: Json = False,
) -> None:
    """Send nothing more for now, and keep the place."""
    with opened_ledger() as engine:
        webhooks.pause(engine, name, because=reason)
    _report("paused", name, as_json)


@_webhook.command()
def resume(name: Name, as_json: Json = False) -> None:
    """Go on where it was paused, or where it fails and waits."""
    with opened_ledger() as engine:
        webhooks.resume(engine, name)
    _report("resumed", name, as_json)


@_webhook.command()
def remove(name: Name, as_json: Json = False) -> None:
    """Forget an endpoint, its place and what was set aside."""
    with opened_ledger() as engine:
        webhooks.remove(engine, name)
    _report("removed", name, as_json)


@_webhook.command()
def rotate(
    name: Name,
    overlap_h: Annotated[
        float, typer.Option(min=0, help="Hours for which the old secret signs too.")
    ] = _OVERLAP_H,
    as_json: Json = False,
) -> None:
    """Sign with a new secret, for a while beside the old one.

    Prints the new secret, this once.
    """
    secret = new_secret()
    with opened_ledger() as engine:
        webhooks.replace_secret(engine, name, secret, overlap_s=overlap_h * 3600)
    _print_secret(name, secret, as_json)


@_webhook.command("test")
def probe(name: Name, as_json: Json = False) -> None:
    """Send an empty message now, from this machine.

    Exit code 1 where the endpoint does not take it.
    """
    from worker.webhooks.post import Poster
    from worker.webhooks.settings import WebhookSettings

    with opened_ledger() as engine:
        endpoint = webhooks.find_webhook(engine, name)
        keys = webhooks.secrets_of(engine, endpoint.id)
    poster = Poster(WebhookSettings())
    try:
        outcome = poster.post(endpoint.url, probe_message(name), keys)
    finally:
        poster.close()
    if as_json:
        print_json({"webhook": name, "taken": outcome.error is None, "error": outcome.error})
    else:
        talk(f"{name} took it" if outcome.error is None else f"{name} did not take it: {outcome.error}")
    if outcome.error is not None:
        raise typer.Exit(FAILED)


@_webhook.command()
def failed(name: Name, limit: int = 100, as_json: Json = False) -> None:
    """List verdicts that were set aside, oldest first.

    The endpoint did not take them for a day.
    """
    with opened_ledger() as engine:
        rows = webhooks.set_aside(engine, name, limit=limit)
    if as_json:
        print_json(rows)
    elif not print_table(rows, _ASIDE):
        talk("nothing was set aside")


@_webhook.command("verify")
def verify_(name: AnyName = None, repair: Repair = True, after: BackTo = None, as_json: Json = False) -> None:
    """Compare what was given out with what exists.

    Given out: delivered or set aside, since the place was last found whole.

    Where it is fewer, the place is set back, and all since then is sent again,
    under the same ids; exit 1. Stop workers of release 0.1.0 first.
    """
    verify(ReaderKind.WEBHOOK, name, after, repair=repair, as_json=as_json)


@_webhook.command()
def retry(
    name: Name,
    ids: Annotated[list[str] | None, typer.Argument(metavar="ID", help="Only these assessments.")] = None,
    as_json: Json = False,
) -> None:
    """Send again what was set aside, out of order."""
    try:
        wanted = [UUID(id_) for id_ in ids] if ids else None
    except ValueError:
        raise InvalidWebhook("an assessment's id is a UUID") from None
    with opened_ledger() as engine:
        count = webhooks.retry_set_aside(engine, name, wanted)
    if as_json:
        print_json({"retried": count})
    else:
        talk(f"to be sent again: {count}")


def _print_secret(name: str, secret: str, as_json: bool) -> None:
    if as_json:
        print_json({"webhook": name, "secret": secret})
    else:
        talk(f"{name}: its messages are signed with this secret, which is not shown again")
        say(secret)


def _report(what: str, name: str, as_json: bool) -> None:
    if as_json:
        print_json({what: name})
    else:
        talk(f"{what}: {name}")


def _shown(row: dict[str, Any]) -> dict[str, str]:
    if row["paused_at"] is not None:
        state = f"paused: {row['paused_because']}"
    elif row["failing_since"] is not None:
        state = f"failing since {row['failing_since']:%Y-%m-%d %H:%M}, next try {row['due_at']:%H:%M:%S}"
    else:
        behind = row["behind_s"]
        state = "well" if behind is None else f"{behind:.0f} s behind"
    return {"state": state, "shown_filter": shown_filter(row)}

"""`vetline enqueue`: submit images from files, folders, URLs, s3 objects or lines of text."""

from collections.abc import Iterator, Sequence
from typing import Annotated

import typer

from moderation.assessment import Submission, Ticket
from moderation.cli.main import SOME_FAILED
from moderation.cli.opening import check_tables
from moderation.cli.output import print_json, print_jsonl, progress_bar, talk
from moderation.errors import InvalidSubmission
from moderation.ledger.engine import open_ledger
from moderation.services.desk import resolve
from producer.client import Client, Submitted, check_policies
from producer.sources import Item, read_source

commands = typer.Typer()
DEFAULT_POLICY = "llavaguard-default"


@commands.command()
def enqueue(
    sources: Annotated[
        list[str],
        typer.Argument(metavar="SOURCE...", help="A file, folder, URL, s3://bucket/key, or - for lines."),
    ],
    policy: Annotated[
        list[str] | None,
        typer.Option(
            help="Policy id, or id@revision; repeat it to judge each image under several.",
            show_default=DEFAULT_POLICY,
        ),
    ] = None,
    batch: Annotated[str | None, typer.Option(help="A name to find these by.")] = None,
    priority: Annotated[str, typer.Option(help="high, normal or low.")] = "normal",
    again: Annotated[
        bool, typer.Option("--again", help="Judge anew what is known, by its place or by its pixels.")
    ] = False,
    tickets: Annotated[bool, typer.Option("--tickets", help="Print a JSON line for each item.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Totals as JSON on stdout.")] = False,
) -> None:
    """Submit images for judging. What is enqueued twice is judged once, unless --again."""
    policies = policy or [DEFAULT_POLICY]
    check_policies(policies, keyed=not again)
    refused: list[str] = []
    with resolve(need_redis=True) as services:
        engine = open_ledger(services.database_url)
        check_tables(engine)
        engine.dispose()
        with Client(services.database_url, services.redis_url) as client, progress_bar() as bar:
            task = bar.add_task("enqueue", total=None)

            def told(done: Sequence[Ticket]) -> None:
                bar.advance(task, len(done))
                if tickets:
                    print_jsonl({"id": t.id, "policy": t.policy, "known": t.known} for t in done)

            def checked() -> Iterator[Submission]:
                for item in (item for source in sources for item in read_source(source)):
                    try:
                        yield from _submissions(client, item, policies, batch, priority, again)
                    except InvalidSubmission as exc:
                        refused.append(f"line {item.line}: {exc}" if item.line else str(exc))

            total = client.submit_many(checked(), on_tickets=told)
    _report(total, refused, as_json)


def _submissions(
    client: Client, item: Item, policies: Sequence[str], batch: str | None, priority: str, again: bool
) -> list[Submission]:
    key = None if again else f"{batch or ''}/{item.key}"
    return client.check_under(
        policies, uri=item.uri, key=key, batch=batch, priority=priority, reuse=not again
    )


def _report(total: Submitted, refused: list[str], as_json: bool) -> None:
    if as_json:
        print_json({"accepted": total.accepted, "known": total.known, "refused": len(refused)})
    else:
        talk(f"accepted {total.accepted}, known {total.known}, refused {len(refused)}")
    for line in refused[:20]:
        talk(f"refused: {line}")
    if refused:
        raise typer.Exit(SOME_FAILED)

"""`vetline feed` prints verdicts as they come, a JSON object a line; `vetline consumer` manages named consumers."""

import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import Annotated, Any

import typer

from consumer.feed import Feed, PublishedVerdict
from moderation.cli.feed_options import After, Category, Name, Unsafe, shown_filter
from moderation.cli.open_ledger import check_tables, opened_ledger
from moderation.cli.options import Batch, Json, Policy
from moderation.cli.output import print_json, print_jsonl, print_table, talk
from moderation.cli.places import AnyName, BackTo, Repair, place_named, verify
from moderation.ledger import consumers
from moderation.ledger.engine import open_ledger
from moderation.ledger.verification import ReaderKind
from moderation.services.resolve import resolve

commands = typer.Typer()
_consumer = typer.Typer(help="List, move and remove named consumers of the feed.", no_args_is_help=True)
commands.add_typer(_consumer, name="consumer")

_TABLE = {
    "name": "consumer",
    "shown_filter": "reads",
    "behind": "behind",
    "read_by": "read by",
    "acknowledged_at": "acknowledged",
}


@commands.command()
def feed(
    after: After = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Wait for more, until SIGTERM.")] = False,
    consumer: Annotated[
        str | None, typer.Option(help="Keep the place under this name; go on from it.")
    ] = None,
    unsafe: Unsafe = False,
    policy: Policy = None,
    category: Category = None,
    batch: Batch = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="A JSON object a line, which it is anyway.")
    ] = False,
) -> None:
    """Print verdicts in order, a JSON object a line.

    With --consumer each comes at least once, across restarts. A batch is acknowledged once its lines were written.
    Each line holds the cursor behind it.
    """
    with resolve(need_redis=False) as services:
        engine = open_ledger(services.database_url)
        check_tables(engine)
        engine.dispose()
        with Feed(
            after=after,
            consumer=consumer,
            policy=policy,
            rating="Unsafe" if unsafe else None,
            category=category,
            batch=batch,
            database_url=services.database_url,
        ) as opened:

            def stop(_number: int, _frame: FrameType | None) -> None:
                opened.stop()

            before = signal.signal(signal.SIGTERM, stop)
            try:
                for verdicts in opened.batches(follow=follow):
                    _write(verdicts)
            finally:
                signal.signal(signal.SIGTERM, before)


@_consumer.command("list")
def list_(as_json: Json = False) -> None:
    """List consumers: what each reads and how far behind it is."""
    with opened_ledger() as engine:
        rows = consumers.consumers(engine)
    if as_json:
        print_json(rows)
    elif not print_table((row | _shown(row) for row in rows), _TABLE):
        talk("no consumers")


@_consumer.command()
def move(
    name: Name, after: Annotated[str, typer.Option(help="A cursor, `start` or `now`.")], as_json: Json = False
) -> None:
    """Set a consumer's place, back or forth.

    What lies between comes again, or never comes.
    """
    with opened_ledger() as engine:
        consumers.move(engine, name, place_named(engine, after))
    if as_json:
        print_json({"moved": name})
    else:
        talk(f"moved: {name}")


@_consumer.command("verify")
def verify_(name: AnyName = None, repair: Repair = True, after: BackTo = None, as_json: Json = False) -> None:
    """Compare what was given out with what exists.

    Counts since the place was last found whole.

    Where fewer were given out, the place is set back, and all since then comes
    again; exit 1. Stop readers of release 0.1.0 first: they do not count.
    """
    verify(ReaderKind.CONSUMER, name, after, repair=repair, as_json=as_json)


@_consumer.command()
def remove(name: Name, as_json: Json = False) -> None:
    """Forget a consumer and its place."""
    with opened_ledger() as engine:
        consumers.remove(engine, name)
    if as_json:
        print_json({"removed": name})
    else:
        talk(f"removed: {name}")


def _write(verdicts: Sequence[PublishedVerdict]) -> None:
    """All lines, out of our hands when this returns. Raises BrokenPipeError where nobody reads any more."""
    print_jsonl(verdict.plain() for verdict in verdicts)
    sys.stdout.flush()


def _shown(row: dict[str, Any]) -> dict[str, str]:
    behind = row["behind_s"]
    return {
        "shown_filter": shown_filter(row),
        "behind": "nothing" if behind is None else f"{behind:.0f} s",
    }

"""`vetline db`: bring the tables to this release."""

from typing import Annotated

import typer

from moderation.cli.output import say, talk
from moderation.cli.places import told_put_back
from moderation.ledger import migrate
from moderation.ledger.engine import open_ledger
from moderation.ledger.feed import adopt
from moderation.ledger.policies import seed_builtin
from moderation.services.resolve import resolve

commands = typer.Typer()
_db = typer.Typer(help="Create, migrate and show the database's tables.", no_args_is_help=True)
commands.add_typer(_db, name="db")


@_db.command()
def upgrade(
    keep_places: Annotated[
        bool,
        typer.Option(
            "--keep-places", help="Put no consumer or webhook back to where 0.1.0 may have lost verdicts."
        ),
    ] = False,
) -> None:
    """Create or migrate the tables, and add built-in policies.

    Safe to repeat.
    """
    with resolve(need_redis=False) as services:
        engine = open_ledger(services.database_url)
        before = migrate.current(engine)
        after = migrate.upgrade_tables(engine, keep_places=keep_places)
        seeded = seed_builtin(engine)
        epoch = adopt(engine)
        for line in told_put_back(engine, after.places):
            talk(line)
        engine.dispose()
    if epoch is not None:
        talk(f"restored from another cluster: the feed begins epoch {epoch}")
    talk(f"tables: {before} -> {after.revision}; built-in policies added: {seeded}")


@_db.command()
def current() -> None:
    """Show the database's revision and this release's."""
    with resolve(need_redis=False) as services:
        engine = open_ledger(services.database_url)
        say(f"{migrate.current(engine)} (this release: {migrate.head()})")
        engine.dispose()

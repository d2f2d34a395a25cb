"""`vetline db`: bring the tables to this release."""

import typer

from moderation.cli.output import talk
from moderation.ledger import migrate
from moderation.ledger.engine import open_ledger
from moderation.ledger.feed import adopt
from moderation.ledger.policies import seed_builtin
from moderation.services.desk import resolve

commands = typer.Typer()
_db = typer.Typer(help="Create, migrate and show the database's tables.", no_args_is_help=True)
commands.add_typer(_db, name="db")


@_db.command()
def upgrade() -> None:
    """Create or migrate the tables, and add built-in policies.

    Safe to repeat.
    """
    with resolve(need_redis=False) as services:
        engine = open_ledger(services.database_url)
        before = migrate.current(engine)
        after = migrate.upgrade(engine)
        seeded = seed_builtin(engine)
        epoch = adopt(engine)
        engine.dispose()
    if epoch is not None:
        talk(f"restored from another cluster: the feed begins epoch {epoch}")
    talk(f"tables: {before} -> {after}; built-in policies added: {seeded}")


@_db.command()
def current() -> None:
    """Show the database's revision and this release's."""
    with resolve(need_redis=False) as services:
        engine = open_ledger(services.database_url)
        typer.echo(f"{migrate.current(engine)} (this release: {migrate.head()})")
        engine.dispose()

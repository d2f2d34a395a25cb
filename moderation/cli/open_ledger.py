"""Opens the ledger for a command, wherever it is."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Engine

from moderation.errors import LedgerUnavailable
from moderation.ledger import migrate
from moderation.ledger.engine import open_ledger
from moderation.services.resolve import resolve


@contextmanager
def opened_ledger() -> Iterator[Engine]:
    """The ledger, with this release's tables. Raises LedgerUnavailable where they are missing."""
    with resolve(need_redis=False) as services:
        engine = open_ledger(services.database_url)
        try:
            check_tables(engine)
            yield engine
        finally:
            engine.dispose()


def check_tables(engine: Engine) -> None:
    """Raises LedgerUnavailable unless the database was migrated at all."""
    if migrate.current(engine) == migrate.EMPTY:
        raise LedgerUnavailable("the database has no Vetline tables yet; run `vetline db upgrade`")

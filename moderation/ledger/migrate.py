"""Bring a database to this release's tables, by Alembic."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, text

from moderation.ledger.engine import reaching_postgres

_MIGRATIONS = Path(__file__).parent / "migrations"
_ONE_AT_A_TIME = 7_265_001  # advisory lock: two deployments that migrate at once take turns


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    return config


def upgrade(engine: Engine, revision: str = "head") -> str:
    """Run what is missing in one transaction and name the revision reached. Safe to repeat and to race."""
    config = _config()
    with (
        reaching_postgres(),
        engine.execution_options(isolation_level="READ COMMITTED").begin() as connection,
    ):
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _ONE_AT_A_TIME})
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
        return MigrationContext.configure(connection).get_current_revision() or "empty"


def head() -> str:
    """The revision that this release expects."""
    return ScriptDirectory.from_config(_config()).get_current_head() or "empty"


def current(engine: Engine) -> str:
    """The database's revision; "empty" where nothing was ever migrated."""
    with reaching_postgres(), engine.connect() as connection:
        return MigrationContext.configure(connection).get_current_revision() or "empty"

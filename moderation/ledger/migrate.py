"""Bring a database to this release's tables, by Alembic.

Alembic is loaded where it is used: it doubles the time that a command takes to start, and most commands only ask
which revision a database is at.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Engine, text

from moderation.ledger import roles
from moderation.ledger.engine import reaching_postgres

if TYPE_CHECKING:
    from alembic.config import Config

_MIGRATIONS = Path(__file__).parent / "migrations"
_ONE_AT_A_TIME = 7_265_001  # advisory lock: two deployments that migrate at once take turns
EMPTY = "empty"  # the revision of a database that was never migrated

_TABLE = text("SELECT to_regclass('alembic_version') IS NOT NULL")
_VERSION = text("SELECT version_num FROM alembic_version")


def upgrade(engine: Engine, revision: str = "head") -> str:
    """Run what is missing in one transaction, grant each role its own, and name the revision reached.

    Safe to repeat and to race.
    """
    from alembic import command

    config = _config()
    with (
        reaching_postgres(),
        engine.execution_options(isolation_level="READ COMMITTED").begin() as connection,
    ):
        connection.execute(
            text("SET LOCAL statement_timeout = 0")
        )  # an index on a full ledger takes its time
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _ONE_AT_A_TIME})
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
        reached = connection.execute(_VERSION).scalar() or EMPTY
        if reached == head():
            roles.grant(connection)
        return reached


def head() -> str:
    """The revision that this release expects."""
    from alembic.script import ScriptDirectory

    return ScriptDirectory.from_config(_config()).get_current_head() or EMPTY


def current(engine: Engine) -> str:
    """The database's revision; EMPTY where nothing was ever migrated."""
    with reaching_postgres(), engine.connect() as connection:
        if not connection.execute(_TABLE).scalar():
            return EMPTY
        return connection.execute(_VERSION).scalar() or EMPTY


def _config() -> "Config":
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    return config

"""Brings a database to this release's tables, with Alembic.

Alembic is imported where it is used: it doubles a command's start, and most commands only ask for the database's
revision.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine, text
from tenacity import retry, retry_if_exception, stop_after_attempt, wait_random

from moderation.cursor import Cursor
from moderation.errors import LedgerUnavailable
from moderation.ledger import roles
from moderation.ledger.engine import autocommit, reaching_postgres
from moderation.ledger.feed import Filter
from moderation.ledger.verification import ReaderKind

if TYPE_CHECKING:
    from alembic.config import Config

_MIGRATIONS = Path(__file__).parent / "migrations"
_ONE_AT_A_TIME = 7_265_001  # advisory lock: two deployments that migrate at once take turns
EMPTY = "empty"  # the revision of a database that was never migrated

_TABLE = text("SELECT to_regclass('alembic_version') IS NOT NULL")
_VERSION = text("SELECT version_num FROM alembic_version")


_TRIES = 6
_DEADLOCK = "40P01"  # of Postgres' codes


def _is_deadlock(error: BaseException) -> bool:
    return isinstance(error, LedgerUnavailable) and getattr(_origin(error), "sqlstate", None) == _DEADLOCK


def _origin(error: LedgerUnavailable) -> object:
    return getattr(error.__cause__, "orig", None)


@dataclass(frozen=True, slots=True)
class PutBack:
    """A consumer or webhook that release 0.1.0 may have lost verdicts of, between `back` and `was`.

    kept: its place was left as it was, at `was`; else it is at `back`.
    """

    kind: ReaderKind
    name: str
    wanted: Filter
    was: Cursor
    back: Cursor
    kept: bool


@dataclass(frozen=True, slots=True)
class Upgrade:
    """revision: the one reached. places: those of consumers and webhooks that the migrations were about."""

    revision: str
    places: Sequence[PutBack]


def upgrade(engine: Engine, revision: str = "head") -> str:
    """Run what is missing in one transaction, grant each role its own, and name the revision reached.

    Safe to repeat and to race.
    """
    return upgrade_tables(engine, revision).revision


@retry(
    retry=retry_if_exception(_is_deadlock),
    stop=stop_after_attempt(_TRIES),
    wait=wait_random(0.2, 2.0),
    reraise=True,
)
def upgrade_tables(engine: Engine, revision: str = "head", *, keep_places: bool = False) -> Upgrade:
    """As `upgrade`, and tell which places were put back. keep_places: put none back.

    A reader that holds what the upgrade waits for, and waits for what it holds, may cost a try: then all begins anew.
    """
    from alembic import command

    config = _config()
    config.attributes["keep_places"] = keep_places
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
    return Upgrade(reached, [_put_back(place) for place in config.attributes.get("places", ())])


def head() -> str:
    """The revision that this release expects."""
    from alembic.script import ScriptDirectory

    return ScriptDirectory.from_config(_config()).get_current_head() or EMPTY


def current(engine: Engine) -> str:
    """The database's revision; EMPTY where nothing was ever migrated."""
    with autocommit(engine) as connection:
        if not connection.execute(_TABLE).scalar():
            return EMPTY
        return connection.execute(_VERSION).scalar() or EMPTY


def _config() -> "Config":
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    return config


def _put_back(place: Mapping[str, Any]) -> PutBack:
    was, back = (Cursor(at["epoch"], int(at["xid"]), at["seq"]) for at in (place["was"], place["back"]))
    return PutBack(
        ReaderKind(place["kind"]), place["name"], Filter(**place["filter"]), was, back, place["kept"]
    )

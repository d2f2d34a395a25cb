"""Opens Postgres, and translates its errors into ours in one place."""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from psycopg.pq import Conninfo
from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.engine.interfaces import IsolationLevel
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from moderation.errors import BadSetting, LedgerUnavailable
from moderation.redaction import MARK
from moderation.settings import LedgerSettings

if TYPE_CHECKING:
    from sqlmodel import Session

# Postgres' classes of "not now": connection lost, too many connections, shut down, read-only standby, a transaction
# that stood still, lock timeout, deadlock.
_DOWN_STATES = ("08", "53", "57", "25006", "25P03", "55P03", "40")

_SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_A_FILE = re.compile(r'(?<= file )"[^"]*"')  # libpq names keys and certificates by their paths

# A Postgres whose machine is gone says nothing more, and the system would wait a quarter of an hour for it.
_VANISHED = {
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,  # ms
}


def ledger_url(database_url: str) -> URL:
    """The URL with the driver that we use; `postgres://` and `postgresql://` mean the same."""
    try:
        url = make_url(database_url)
    except (
        ArgumentError,
        ValueError,
    ) as exc:  # ValueError: a port that is no number, as of libpq's host:1,host:2
        raise BadSetting(
            "DATABASE_URL is not a database URL; several hosts are /NAME?host=one:5432&host=two:5432"
        ) from exc
    if url.get_backend_name() not in {"postgres", "postgresql"}:
        raise BadSetting(f"DATABASE_URL must be a Postgres URL, not {url.get_backend_name()}")
    known = {option.keyword.decode() for option in Conninfo.get_defaults()}
    if unknown := sorted(url.query.keys() - known):
        raise BadSetting(f"DATABASE_URL: {unknown[0]} is not a parameter of libpq")
    if (mode := url.query.get("sslmode", "prefer")) not in _SSL_MODES:
        raise BadSetting(f"DATABASE_URL: sslmode is one of {', '.join(_SSL_MODES)}, not {mode}")
    return url.set(drivername="postgresql+psycopg")


def open_ledger(database_url: str, settings: LedgerSettings | None = None) -> Engine:
    """An engine whose statements commit by themselves; `engine.begin()` still makes a transaction of several.

    Connects lazily: a database that is down shows at the first statement, as LedgerUnavailable.
    """
    settings = settings or LedgerSettings()
    options = f"-c statement_timeout={int(settings.statement_timeout_s * 1000)} -c timezone=UTC"
    return create_engine(
        ledger_url(database_url),
        isolation_level="AUTOCOMMIT",
        pool_size=settings.pool_size,
        max_overflow=0,
        pool_timeout=settings.pool_timeout_s,
        pool_use_lifo=True,
        connect_args={
            "connect_timeout": settings.connect_timeout_s,
            "options": options,
            "application_name": "vetline",
            **_VANISHED,
        },
    )


def is_down(error: DBAPIError) -> bool:
    """Whether the error says that Postgres cannot be used now, rather than that the statement is wrong."""
    state = getattr(error.orig, "sqlstate", None)
    if state is None:
        return error.connection_invalidated or isinstance(error, OperationalError | InterfaceError)
    return str(state).startswith(_DOWN_STATES)


@contextmanager
def reaching_postgres() -> Iterator[None]:
    """Turns Postgres being away into LedgerUnavailable; any other error is a defect and passes."""
    try:
        yield
    except PoolTimeoutError as exc:
        raise LedgerUnavailable("no connection to Postgres came free in time") from exc
    except DBAPIError as exc:
        if not is_down(exc):
            raise
        reason = str(exc.orig).strip().splitlines()
        line = reason[0] if reason else type(exc.orig).__name__
        raise LedgerUnavailable(f"Postgres: {_A_FILE.sub(MARK, line)}") from exc


@contextmanager
def autocommit(engine: Engine) -> Iterator[Connection]:
    """A connection on which each statement is committed by itself. Raises LedgerUnavailable."""
    with reaching_postgres(), engine.connect() as connection:
        yield connection


@contextmanager
def transaction(
    engine: Engine, *, patience_s: float | None = None, isolation: IsolationLevel = "READ COMMITTED"
) -> Iterator[Connection]:
    """Several statements that are committed together, or not at all.

    patience_s: how long each may take, in place of the setting: a report over the whole ledger takes minutes.
    """
    with reaching_postgres(), engine.execution_options(isolation_level=isolation).begin() as connection:
        if patience_s is not None:
            connection.execute(text(f"SET LOCAL statement_timeout = {int(patience_s * 1000)}"))
        yield connection


@contextmanager
def session(engine: Engine) -> Iterator["Session"]:
    """A transaction whose rows are objects of the models: for all that is not hot. Raises LedgerUnavailable.

    SQLModel is loaded here, since commands that only look at counts start without it.
    """
    from sqlmodel import Session

    with transaction(engine) as connection, Session(connection, expire_on_commit=False) as rows:
        yield rows
        rows.flush()


def ping(engine: Engine) -> None:
    """Raises LedgerUnavailable unless Postgres answers."""
    with autocommit(engine) as connection:
        connection.execute(text("SELECT 1"))


def skew_s(engine: Engine) -> float:
    """By how many seconds this machine's clock is ahead of Postgres'; exact to half the time of an answer."""
    with autocommit(engine) as connection:
        connection.execute(text("SELECT 1"))  # what connecting takes is not part of it
        before = time.time()
        there = connection.execute(text("SELECT extract(epoch FROM clock_timestamp())::float")).scalar_one()
        return (before + time.time()) / 2 - float(there)

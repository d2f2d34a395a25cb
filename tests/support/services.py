"""One real Postgres and one real Redis for a test session; a database and a queue of its own a test."""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import redis
from psycopg import sql
from sqlalchemy.engine import make_url

from moderation.ledger.engine import open_ledger
from moderation.ledger.migrate import upgrade
from moderation.services.postgres import LocalPostgres
from moderation.services.redis import LocalRedis

_TEMPLATE = "migrated"
_DATABASES = 4096  # of Redis, one a test; an empty one costs a few hundred bytes


class SessionPostgres:
    """The session's cluster, with a migrated database that each test's own is copied from."""

    def __init__(self, server: LocalPostgres) -> None:
        self.server = server
        self._numbers = itertools.count()
        self._run(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(_TEMPLATE)))
        engine = open_ledger(self._url_of(_TEMPLATE))
        upgrade(engine)
        engine.dispose()

    @contextmanager
    def database(self, *, migrated: bool = True) -> Iterator[str]:
        """The URL of a new database; dropped at the end, whoever is still connected to it."""
        name = f"test_{next(self._numbers)}"
        template = _TEMPLATE if migrated else "template0"
        self._run(
            sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template))
        )
        try:
            yield self._url_of(name)
        finally:
            self._run(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))

    def _url_of(self, database: str) -> str:
        return make_url(self.server.url).set(database=database).render_as_string(hide_password=False)

    def _run(self, statement: sql.Composed) -> None:
        plain = self.server.url.replace("postgresql+psycopg", "postgresql", 1)
        with psycopg.connect(plain, autocommit=True) as connection:
            connection.execute(statement)


class SessionRedis:
    """The session's Redis, whose numbered databases are handed out one a test."""

    def __init__(self, server: LocalRedis) -> None:
        self.server = server
        self._numbers = itertools.count(1)

    @contextmanager
    def database(self) -> Iterator[str]:
        """The URL of an empty database; emptied at the end."""
        url = self.server.url_of(next(self._numbers))
        try:
            yield url
        finally:
            with redis.Redis.from_url(url) as connection:
                connection.flushdb()


@contextmanager
def running_postgres(folder: Path) -> Iterator[LocalPostgres]:
    """A cluster that does not outlive a power cut, and need not."""
    with LocalPostgres.start(folder, fsync=False) as server:
        yield server


@contextmanager
def running_redis(folder: Path) -> Iterator[LocalRedis]:
    with LocalRedis.start(folder, appendonly=False, databases=_DATABASES) as server:
        yield server

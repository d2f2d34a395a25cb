"""Fixtures that every test may ask for. Nothing here is started before a test asks for it."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from moderation.services.postgres import LocalPostgres
from moderation.services.redis import LocalRedis
from tests.support.services import SessionPostgres, SessionRedis, running_postgres, running_redis

# A run in a script's background ignores Ctrl-C, and so would everything that tests start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("deep", max_examples=1000)  # --hypothesis-profile=deep

_CONFIGURATION = ("DATABASE_URL", "REDIS_URL", "CELERY_BROKER_URL", "LOG_LEVEL")


@pytest.fixture(autouse=True)
def nothing_configured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test reaches the services, or depends on the settings, of whoever runs it."""
    for name in os.environ:
        if name in _CONFIGURATION or name.startswith("VETLINE_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("VETLINE_DATA_DIR", str(tmp_path / ".vetline"))


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SessionPostgres]:
    with running_postgres(tmp_path_factory.mktemp("postgres")) as server:
        yield SessionPostgres(server)


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SessionRedis]:
    with running_redis(tmp_path_factory.mktemp("redis")) as server:
        yield SessionRedis(server)


@pytest.fixture
def postgres_url(postgres_server: SessionPostgres) -> Iterator[str]:
    """A migrated database of this test's own."""
    with postgres_server.database() as url:
        yield url


@pytest.fixture
def empty_postgres_url(postgres_server: SessionPostgres) -> Iterator[str]:
    """A database of this test's own that no migration has touched."""
    with postgres_server.database(migrated=False) as url:
        yield url


@pytest.fixture
def redis_url(redis_server: SessionRedis) -> Iterator[str]:
    """An empty Redis database of this test's own, and so a queue of its own."""
    with redis_server.database() as url:
        yield url


@pytest.fixture
def services_env(monkeypatch: pytest.MonkeyPatch, postgres_url: str, redis_url: str) -> dict[str, str]:
    """Both services as the environment names them, set for this process and returned for its children."""
    named = {"DATABASE_URL": postgres_url, "REDIS_URL": redis_url}
    for name, url in named.items():
        monkeypatch.setenv(name, url)
    return named


@pytest.fixture
def own_postgres(tmp_path: Path) -> Iterator[LocalPostgres]:
    """A whole cluster for a test that stops, kills or fills it. Not migrated."""
    with running_postgres(tmp_path / "own-postgres") as server:
        yield server


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[LocalRedis]:
    """A whole Redis for a test that stops, kills, flushes or fills it."""
    with running_redis(tmp_path / "own-redis") as server:
        yield server

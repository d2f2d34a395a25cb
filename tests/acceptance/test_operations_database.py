"""docs/operations.md on Postgres: roles, rotation, upgrade and backup, run as the page has them, under a live worker."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from uuid import UUID

import psycopg
import pytest
from sqlalchemy import Engine
from sqlalchemy.engine import make_url

from moderation.ledger import migrate
from moderation.ledger.engine import open_ledger
from moderation.services.postgres import LocalPostgres
from tests.acceptance.conftest import System
from tests.support.ledger import POLICY
from tests.support.pages import blocks, run_here
from tests.support.waiting import wait_for

PAGE = "docs/operations.md"
MAKE_ROLES, HAND_OVER = blocks(PAGE, "Roles", "sql")
ADD_LOGIN, WHO_IS_LEFT, DROP_LOGIN = blocks(PAGE, "Rotating secrets", "sql")
_PASSWORD = "test"

SystemOf = Callable[[str, str], System]


class Cluster:
    """A Postgres whose roles are this test's, as its administrator sees it."""

    def __init__(self, server: LocalPostgres, redis_url: str) -> None:
        self._server, self.redis_url = server, redis_url

    def said(self, block: str) -> list[tuple[object, ...]]:
        """A block of SQL, its passwords filled in; the rows of the last statement."""
        with psycopg.connect(self.url_of(None), autocommit=True) as connection:
            cursor = connection.execute(block.replace("'...'", f"'{_PASSWORD}'").encode())
            return cursor.fetchall() if cursor.description else []

    def url_of(self, login: str | None) -> str:
        """As libpq and Vetline both read it; None: the administrator's."""
        url = make_url(self._server.url).set(drivername="postgresql")
        url = url.set(username=login, password=_PASSWORD) if login else url
        return url.render_as_string(hide_password=False)

    def env_of(self, login: str) -> dict[str, str]:
        return {"DATABASE_URL": self.url_of(login), "REDIS_URL": self.redis_url}

    def owners(self) -> set[object]:
        return {
            owner for (owner,) in self.said("SELECT tableowner FROM pg_tables WHERE schemaname = 'public'")
        }


@pytest.fixture
def cluster(own_postgres: LocalPostgres, redis_url: str) -> Cluster:
    return Cluster(own_postgres, redis_url)


@contextmanager
def opened(url: str) -> Iterator[Engine]:
    engine = open_ledger(url)
    yield engine
    engine.dispose()


def submit(system: System, count: int, *, name: str) -> list[UUID]:
    uris = [system.image(f"{name}{n}", (n, n, n)) for n in range(count)]
    return [system.client.submit(uri, POLICY, reuse=False).id for uri in uris]


def test_each_login_of_the_page_does_its_part_and_one_is_rotated_under_load(
    cluster: Cluster, system_of: SystemOf
) -> None:
    cluster.said(MAKE_ROLES)
    (upgrade,) = blocks(PAGE, "Roles")

    def as_(login: str, command: str) -> str:
        return run_here(command, cluster.env_of(login))

    assert migrate.head() in as_("deploy", upgrade)
    assert cluster.owners() == {"vetline_migrate"}
    system = system_of(cluster.url_of("deploy"), cluster.redis_url)
    image = system.image("first")
    as_("shop", f"vetline enqueue '{image}' --batch first")
    system.server.script(default={"latency_s": 0.2})
    old = system.worker(DATABASE_URL=cluster.url_of("gpu_worker"))
    system.wait_for_counts(done=1)
    assert "done 1" in as_("grafana", "vetline status --batch first")
    assert '"rating":"Safe"' in as_("takedown", "vetline feed --consumer takedown")
    with psycopg.connect(cluster.url_of("keda")) as scaler:
        assert scaler.execute("SELECT open FROM open_work").fetchall() == [(0,)]

    cluster.said(ADD_LOGIN)
    system.worker(DATABASE_URL=cluster.url_of("gpu_worker_2"))
    submit(system, 60, name="r")
    wait_for(lambda: system.counts().get("done", 0) > 8, what="work under way")
    assert old.stop() == 0
    assert {login for login, *_ in cluster.said(WHO_IS_LEFT)} == {"gpu_worker_2"}
    cluster.said(DROP_LOGIN)
    submit(system, 4, name="after")
    system.wait_for_counts(done=65)
    assert cluster.said("SELECT count(*) FROM assessment WHERE charged <> 1") == [(0,)]
    with pytest.raises(psycopg.OperationalError, match="gpu_worker"):
        psycopg.connect(cluster.url_of("gpu_worker"))


def test_tables_of_one_old_login_are_handed_over_while_it_works(
    cluster: Cluster, system_of: SystemOf
) -> None:
    cluster.said("CREATE ROLE old_app LOGIN PASSWORD '...'; GRANT CREATE ON SCHEMA public TO old_app")
    (upgrade,) = blocks(PAGE, "Roles")
    run_here(upgrade, cluster.env_of("old_app"))
    system = system_of(cluster.url_of("old_app"), cluster.redis_url)
    worker = system.worker()
    submit(system, 2, name="before")
    system.wait_for_counts(done=2)
    cluster.said(MAKE_ROLES)
    run_here(upgrade, cluster.env_of("old_app"))
    cluster.said(HAND_OVER)
    assert cluster.owners() == {"vetline_migrate"}
    run_here(upgrade, cluster.env_of("deploy"))
    submit(system, 2, name="after")
    system.wait_for_counts(done=4)
    assert worker.process.poll() is None
    with opened(cluster.url_of("old_app")) as engine:
        assert migrate.current(engine) == migrate.head()

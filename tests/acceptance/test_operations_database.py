"""docs/operations.md on Postgres: roles, rotation, upgrade and backup, run as the page has them, under a live worker."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

import psycopg
import pytest
from sqlalchemy import Engine
from sqlalchemy.engine import make_url

from moderation.ledger import migrate
from moderation.ledger.engine import open_ledger
from moderation.ledger.policies import seed_builtin
from moderation.ledger.server import read_server
from moderation.services.postgres import LocalPostgres, _binaries
from tests.acceptance.conftest import System
from tests.support.conservation import violations
from tests.support.ledger import POLICY, claimed, record, row, take_back, verdict
from tests.support.pages import blocks, run_here, typed
from tests.support.standby import plain, standby_of
from tests.support.waiting import wait_for
from worker.doctor.check import CheckState
from worker.doctor.postgres import keeping

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


def test_an_upgrade_takes_nothing_from_workers_of_the_release_before(system: System) -> None:
    """They run on the tables of before and through the migration; the newest one is taken back for it."""
    (upgrade,) = blocks(PAGE, "Upgrading")
    take_back(system.engine, migrate.head())
    worker = system.worker()
    system.server.script(default={"latency_s": 0.1})
    submit(system, 40, name="u")
    wait_for(lambda: system.counts().get("done", 0) > 4, what="work under way")
    assert f"-> {migrate.head()}" in run_here(upgrade, system.env)
    system.wait_for_counts(done=40)
    assert worker.process.poll() is None
    assert not worker.said("write_failed")


def test_a_dump_brings_every_verdict_into_another_cluster_and_begins_an_epoch(
    cluster: Cluster, postgres_url: str, tmp_path: Path
) -> None:
    dump, restore = blocks(PAGE, "Backup")
    with opened(postgres_url) as engine:
        seed_builtin(engine)
        ids = []
        for number in range(3):
            item = claimed(engine)
            record(engine, item, verdict(rationale=f"no. {number}"), worker="w1")
            ids.append(item.id)
        running = claimed(engine).id
    cluster.said(MAKE_ROLES)
    source = make_url(postgres_url).set(drivername="postgresql").render_as_string(hide_password=False)
    env = {
        "DATABASE_URL": source,
        "RESTORED_URL": cluster.url_of("deploy"),
        "PATH": os.pathsep.join([str(_binaries()), os.environ["PATH"]]),
    }
    typed(dump, tmp_path, env)
    assert "the feed begins epoch 2" in typed(restore, tmp_path, env)
    assert cluster.owners() == {"vetline_migrate"}
    with opened(cluster.url_of("deploy")) as engine:
        assert [row(engine, id_)["state"] for id_ in [*ids, running]] == ["done"] * 3 + ["running"]
    assert cluster.said("SELECT rationale FROM verdict ORDER BY seq") == [(f"no. {n}",) for n in range(3)]
    assert cluster.said("SELECT has_table_privilege('gpu_worker', 'verdict', 'INSERT')") == [(True,)]


def test_a_backlog_is_held_up_capped_and_ended(system: System) -> None:
    (block,) = blocks(PAGE, "A backlog of ten million")
    system.client.submit_many([system.image("a")] * 30, POLICY, batch="crawl-7")
    said = run_here(block, system.env)
    assert "paused: batch crawl-7" in said
    assert "too much at once" in said
    assert system.counts() == {"cancelled": 30}


def test_a_standby_that_is_promoted_is_found_by_a_worker_that_knows_both_hosts(
    own_postgres: LocalPostgres, redis_url: str, system_of: SystemOf, tmp_path: Path
) -> None:
    """With commits that wait for the standby, as the page asks for where nothing may be lost."""
    with opened(own_postgres.url) as engine:
        migrate.upgrade(engine)
    with standby_of(own_postgres, tmp_path / "standby") as standby:
        for statement in ("ALTER SYSTEM SET synchronous_standby_names = '*'", "SELECT pg_reload_conf()"):
            with psycopg.connect(plain(own_postgres), autocommit=True) as connection:
                connection.execute(statement.encode())
        with opened(plain(own_postgres)) as engine:
            wait_for(lambda: read_server(engine).waits_for_them, what="commits that wait")
            (found,) = [c for c in keeping(read_server(engine), configured=True) if c.name == "standby"]
            assert found.state is CheckState.OK
        with opened(plain(standby)) as engine:
            assert next(keeping(read_server(engine), configured=False)).name == "postgres writes"
        system = system_of(_both(own_postgres, standby), redis_url)
        worker = system.worker()
        system.server.script(default={"latency_s": 0.2})
        accepted = submit(system, 30, name="f")
        wait_for(lambda: system.counts().get("done", 0) > 4, what="work under way")
        own_postgres.kill()
        standby.promote()
        system.engine.dispose()  # the test's own connections; the worker's are its own to mend
        system.wait_for_counts(done=30, timeout_s=40)
        assert worker.process.poll() is None
        assert violations(system.engine, accepted) == []


def _both(primary: LocalPostgres, standby: LocalPostgres) -> str:
    """The page's URL, with these two for its hosts."""
    (written,) = blocks(PAGE, "Postgres away, or failed over", "text")
    url = make_url(primary.url)
    named = {
        "gpu_worker:PASSWORD": f"{url.username}:{url.password}",
        "/vetline?": f"/{url.database}?",
        "db-1:5432": f"127.0.0.1:{primary.port}",
        "db-2:5432": f"127.0.0.1:{standby.port}",
    }
    for old, new in named.items():
        assert written.count(old) == 1
        written = written.replace(old, new)
    return written.strip()

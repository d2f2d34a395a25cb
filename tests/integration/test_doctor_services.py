"""What `vetline doctor` says of Redis and Postgres as they are set, and what to do about it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from sqlalchemy import Engine, text

from moderation.ledger import roles
from moderation.ledger.engine import open_ledger
from moderation.ledger.server import PostgresServer, read_server
from moderation.services.postgres import LocalPostgres
from moderation.services.redis import LocalRedis
from tests.support.waiting import wait_for
from worker.doctor.check import Check, CheckState
from worker.doctor.postgres import clock, keeping, server_roles
from worker.doctor.redis import persistence, takes_writes

Client = redis.Redis


@pytest.fixture
def client(own_redis: LocalRedis) -> Iterator[Client]:
    with redis.Redis.from_url(own_redis.url) as connection:
        yield connection


def test_a_redis_that_keeps_nothing_costs_seconds_and_is_a_note(client: Client) -> None:
    found = persistence(client.info())
    assert (found.state, found.advice) == (CheckState.NOTE, "appendonly yes, where those seconds count")
    assert "rings again in seconds" in found.says


def test_an_append_only_file_is_well(tmp_path: Path) -> None:
    with LocalRedis.start(tmp_path / "kept") as server, redis.Redis.from_url(server.url) as client:
        assert persistence(client.info()) == Check("redis disk", CheckState.OK, "keeps an append-only file")


def test_a_replica_and_a_disk_that_is_full_are_problems(client: Client) -> None:
    assert list(takes_writes(client.info())) == []
    client.config_set("dir", "/proc")  # where nobody writes
    client.bgsave()
    (failed,) = wait_for(lambda: list(takes_writes(client.info())), what="a snapshot that failed")
    assert failed.state is CheckState.PROBLEM
    assert "last snapshot failed" in failed.says
    assert "full" in failed.advice
    client.replicaof("127.0.0.1", "1")
    replica, *_ = takes_writes(client.info())
    assert (replica.state, replica.advice) == (CheckState.PROBLEM, "point REDIS_URL at the primary")


def test_a_clock_that_is_minutes_off_is_a_problem_and_seconds_are_not() -> None:
    assert clock(0.4) == Check("clock", CheckState.OK, "0.4 s ahead of Postgres")
    assert clock(-59.0).state is CheckState.OK
    behind = clock(-61.0)
    assert (behind.state, behind.says) == (CheckState.PROBLEM, "61.0 s behind Postgres")
    assert "NTP" in behind.advice
    assert clock(3600.0).state is CheckState.PROBLEM


def test_roles_that_are_missing_or_bare_are_noted_with_what_to_run(ledger: Engine) -> None:
    assert server_roles(roles.roles_status(ledger)).state is CheckState.OK
    missing = server_roles(roles.RolesStatus(missing=("vetline_worker",), bare=()))
    assert missing.state is CheckState.NOTE
    assert "CREATE ROLE vetline_worker NOLOGIN" in missing.advice
    with ledger.connect() as connection:
        connection.execute(text("REVOKE ALL ON open_work, alembic_version FROM vetline_scaler"))
    bare = server_roles(roles.roles_status(ledger))
    assert (bare.state, bare.says, bare.advice) == (
        CheckState.NOTE,
        "nothing granted to vetline_scaler",
        "vetline db upgrade",
    )


def by_name(found: PostgresServer, *, configured: bool = True) -> dict[str, Check]:
    return {check.name: check for check in keeping(found, configured=configured)}


def test_a_postgres_that_may_forget_is_noted(ledger: Engine) -> None:
    """The tests' own is one: it does not outlive a power cut."""
    found = by_name(read_server(ledger))["postgres disk"]
    assert (found.state, found.says) == (
        CheckState.NOTE,
        "fsync, full_page_writes off: a crash can lose what was accepted",
    )
    assert found.advice.startswith("fsync = on")


def test_a_postgres_that_keeps_all_says_so_until_commits_do_not_wait_for_the_disk(tmp_path: Path) -> None:
    with LocalPostgres.start(tmp_path / "kept") as kept_server:
        engine = open_ledger(kept_server.url)
        assert by_name(read_server(engine))["postgres disk"].state is CheckState.OK
        with engine.connect() as connection:
            connection.execute(text("ALTER SYSTEM SET synchronous_commit = off"))
            connection.execute(text("SELECT pg_reload_conf()"))
        wait_for(lambda: read_server(engine).off, what="the setting read")
        assert by_name(read_server(engine))["postgres disk"].says.startswith("synchronous_commit off")
        engine.dispose()


STANDBYS: list[tuple[int, bool, CheckState, str]] = [
    (0, False, CheckState.NOTE, "archived WAL"),
    (1, False, CheckState.NOTE, "synchronous_standby_names"),
    (2, True, CheckState.OK, ""),
]


@pytest.mark.parametrize(("count", "waits", "state", "advice"), STANDBYS)
def test_what_a_failover_could_lose_is_said(count: int, waits: bool, state: CheckState, advice: str) -> None:
    found = PostgresServer("18.0", is_standby=False, standbys=count, waits_for_them=waits, off=())
    check = by_name(found)["standby"]
    assert check.state is state
    assert advice in check.advice
    assert "standby" not in by_name(found, configured=False), "one that was started here wants none"


def test_a_standby_is_no_ledger() -> None:
    found = by_name(PostgresServer("18.0", is_standby=True, standbys=0, waits_for_them=False, off=()))[
        "postgres writes"
    ]
    assert found.state is CheckState.PROBLEM
    assert "target_session_attrs=read-write" in found.advice

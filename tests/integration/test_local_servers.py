"""Postgres and Redis of one's own: made once, closed to strangers, and never left behind."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from moderation.errors import ServiceMissing
from moderation.services.account import account_for
from moderation.services.folder import running_program
from moderation.services.postgres import LocalPostgres, StopMode
from moderation.services.redis import LocalRedis
from tests.support.waiting import wait_for

ROOT = Path(__file__).parents[2]


def connect(url: str) -> psycopg.Connection:
    return psycopg.connect(url.replace("+psycopg", ""), autocommit=True, connect_timeout=5)


def is_gone(pid: int) -> bool:
    """No such process, or one that has ended and was not yet waited for."""
    status = Path(f"/proc/{pid}/stat")
    if Path("/proc/self").exists():
        return not status.exists() or status.read_text().rsplit(")", 1)[1].split()[0] == "Z"
    return running_program(pid) == ""


def test_a_cluster_is_made_once_and_keeps_its_rows(tmp_path: Path) -> None:
    with LocalPostgres.start(tmp_path / "pg", fsync=False) as first, connect(first.url) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 1 AS one")
    with LocalPostgres.start(tmp_path / "pg", fsync=False) as second, connect(second.url) as connection:
        assert connection.execute("SELECT one FROM kept").fetchone() == (1,)


def test_a_cluster_is_durable_unless_a_test_says_otherwise(tmp_path: Path) -> None:
    with LocalPostgres.start(tmp_path / "pg") as server, connect(server.url) as connection:
        shown = {
            name: connection.execute(f"SHOW {name}").fetchone()
            for name in ("fsync", "full_page_writes", "synchronous_commit", "data_checksums")
        }
    assert set(shown.values()) == {("on",)}


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_postgres_comes_back_on_its_port(own_postgres: LocalPostgres, mode: StopMode) -> None:
    before = own_postgres.url, own_postgres.pid
    own_postgres.restart(mode)
    assert own_postgres.url == before[0]
    assert own_postgres.pid != before[1]
    connect(own_postgres.url).close()


def test_postgres_comes_back_after_kill_9(own_postgres: LocalPostgres) -> None:
    with connect(own_postgres.url) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 1 AS one")
        own_postgres.kill()
    assert not own_postgres.alive()
    own_postgres.restart()
    with connect(own_postgres.url) as connection:
        assert connection.execute("SELECT one FROM kept").fetchone() == (1,)


def test_clusters_run_side_by_side(tmp_path: Path, own_postgres: LocalPostgres) -> None:
    with LocalPostgres.start(tmp_path / "other", fsync=False) as other:
        assert other.port != own_postgres.port
        connect(other.url).close()


def test_postgres_refuses_whoever_has_not_read_the_password(own_postgres: LocalPostgres) -> None:
    for guess in ("", "vetline", "postgres"):
        with pytest.raises(psycopg.OperationalError, match=r"password"):
            psycopg.connect(
                host="127.0.0.1", port=own_postgres.port, user="vetline", dbname="postgres", password=guess
            )


def test_redis_refuses_whoever_has_not_read_the_password(own_redis: LocalRedis) -> None:
    at_once = Retry(NoBackoff(), 0)
    with (
        redis.Redis(port=own_redis.port or 0, retry=at_once) as stranger,
        pytest.raises(redis.AuthenticationError),
    ):
        stranger.ping()


@pytest.mark.parametrize("service", [LocalPostgres, LocalRedis])
def test_passwords_are_closed_to_others_and_off_the_command_line(
    tmp_path: Path, service: type[LocalPostgres] | type[LocalRedis]
) -> None:
    with service.start(tmp_path / "server") as server:
        password_file = tmp_path / "server" / "password"
        assert password_file.stat().st_mode & 0o077 == 0
        shown = subprocess.run(
            ["ps", "-ww", "-o", "args=", "-p", str(server.pid)], capture_output=True, text=True
        )
        assert shown.stdout.strip()
        assert password_file.read_text() not in shown.stdout
        assert password_file.read_text() not in (tmp_path / "server" / "log").read_text()


@pytest.mark.parametrize("service", [LocalPostgres, LocalRedis])
def test_servers_listen_on_loopback_alone(
    tmp_path: Path, service: type[LocalPostgres] | type[LocalRedis]
) -> None:
    with service.start(tmp_path / "server") as server:
        elsewhere = socket.gethostbyname(socket.gethostname())
        addresses = {"127.0.0.2", elsewhere} - {"127.0.0.1"}
        for address in addresses:
            with socket.socket() as probe:
                probe.settimeout(2)
                assert probe.connect_ex((address, server.port or 0)) != 0, f"{address} answered"


@pytest.mark.parametrize("service", [LocalPostgres, LocalRedis])
def test_a_taken_port_is_said_in_one_line(
    tmp_path: Path, service: type[LocalPostgres] | type[LocalRedis]
) -> None:
    with socket.socket() as squatter:
        squatter.bind(("127.0.0.1", 0))
        squatter.listen()
        with pytest.raises(ServiceMissing) as refused:
            service.start(tmp_path / "server", port=squatter.getsockname()[1])
    assert "did not start" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_redis_never_evicts_and_keeps_its_queue_over_a_restart(tmp_path: Path) -> None:
    with LocalRedis.start(tmp_path / "redis") as server, redis.Redis.from_url(server.url) as client:
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        client.lpush("queue", "due")
        server.restart()
        assert client.lrange("queue", 0, -1) == [b"due"]


def test_redis_comes_back_on_its_port_after_kill_9(own_redis: LocalRedis) -> None:
    url = own_redis.url
    own_redis.kill()
    assert not own_redis.alive()
    own_redis.restart()
    assert own_redis.url == url
    with redis.Redis.from_url(url) as client:
        assert client.ping()


PARENT = """
import sys, time
from pathlib import Path
from moderation.services.postgres import LocalPostgres, StopMode
from moderation.services.redis import LocalRedis
folder = Path(sys.argv[1])
postgres = LocalPostgres.start(folder / "postgres", fsync=False)
redis = LocalRedis.start(folder / "redis")
print(postgres.pid, redis.pid, flush=True)
{ending}
"""


@pytest.mark.parametrize(
    ("ending", "signal_name"),
    [
        ("time.sleep(600)", "SIGKILL"),
        ("time.sleep(600)", "SIGTERM"),
        ("raise SystemExit(0)", None),
    ],
    ids=["killed", "terminated", "forgot to stop them"],
)
def test_servers_end_with_the_process_that_started_them(
    tmp_path: Path, ending: str, signal_name: str | None
) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", PARENT.format(ending=ending), str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    with parent:
        assert parent.stdout is not None
        pids = [int(word) for word in parent.stdout.readline().split()]
        assert len(pids) == 2
        if signal_name:
            parent.send_signal(signal.Signals[signal_name])
        parent.wait(20)
    wait_for(lambda: all(map(is_gone, pids)))
    # A clean stop: Postgres takes its lock file with it.
    wait_for(lambda: not (tmp_path / "postgres" / "data" / "postmaster.pid").exists())


def test_a_lock_file_that_names_another_program_does_not_stop_postgres(tmp_path: Path) -> None:
    with LocalPostgres.start(tmp_path / "pg", fsync=False) as server:
        server.kill()
        lock = tmp_path / "pg" / "data" / "postmaster.pid"
        # As after a reboot, when the old number belongs to somebody else: here, to this very test.
        lock.write_text(lock.read_text().replace(str(server.pid), str(os.getpid()), 1))
        server.restart()
        connect(server.url).close()


AS_A_USER = """
import os, sys
from pathlib import Path
from moderation.services.postgres import LocalPostgres
assert os.geteuid() != 0
with LocalPostgres.start(Path(sys.argv[1]), fsync=False) as server:
    print(server.alive())
"""


def test_postgres_starts_for_a_normal_user(tmp_path: Path) -> None:
    prefix: tuple[str, ...] = ()
    if os.geteuid() == 0:  # become another, who may look into folders, as this Python may lie under /root
        hidden = tmp_path / "hidden"
        hidden.mkdir(mode=0o700)
        account = account_for([hidden])
        account.own(tmp_path)
        prefix = account.prefix
        assert prefix
    ran = subprocess.run(
        [*prefix, sys.executable, "-c", AS_A_USER, str(tmp_path / "pg")],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert ran.stdout.strip() == "True", ran.stderr


WITHOUT_PACKAGES = "import sys; sys.path.insert(0, sys.argv[1]); from pathlib import Path; "
ASK = {
    "redis": "from moderation.services.redis import LocalRedis as It; ",
    "postgres": "from moderation.services.postgres import LocalPostgres as It; ",
}
TRY = """
try: It.start(Path(sys.argv[2]))
except Exception as exc: print(type(exc).__name__, exc)
"""


@pytest.mark.parametrize(
    ("service", "named"),
    [
        ("redis", ["apt install redis-server", "brew install redis", "REDIS_URL"]),
        ("postgres", ["vetline[embedded]", "DATABASE_URL"]),
    ],
)
def test_a_machine_without_the_server_gets_one_line_that_says_how(
    tmp_path: Path, service: str, named: list[str]
) -> None:
    # -S leaves the installed packages out; the PATH holds no programs.
    code = WITHOUT_PACKAGES + ASK[service] + TRY
    ran = subprocess.run(
        [sys.executable, "-S", "-c", code, str(ROOT), str(tmp_path)],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    lines = ran.stdout.splitlines()
    assert len(lines) == 1, ran.stderr
    assert lines[0].startswith("ServiceMissing")
    assert all(words in lines[0] for words in named)


def test_a_redis_too_old_for_kombu_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = tmp_path / "bin" / "redis-server"
    old.parent.mkdir()
    old.write_text("#!/bin/sh\necho 'Redis server v=5.0.7 sha=00000000:0'\n")
    old.chmod(0o755)
    monkeypatch.setenv("PATH", f"{old.parent}{os.pathsep}{os.environ['PATH']}")
    with (
        LocalRedis.start(tmp_path / "redis", appendonly=False) as server,
        redis.Redis.from_url(server.url) as client,
    ):
        version = tuple(int(part) for part in client.info()["redis_version"].split(".")[:2])
    assert version >= (6, 2)

"""Where a command gets its services: as configured, from a running `vetline up`, or started and shared."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest
import redis

from moderation.errors import BrokerUnavailable, Misuse
from moderation.services.lock import is_taken
from moderation.services.resolve import resolve
from moderation.services.run_file import RunFile, keep_run_file, read_run_file
from tests.support.waiting import wait_for

ROOT = Path(__file__).parents[2]

COMMAND = """
import json, sys
from moderation.services.resolve import resolve
with resolve(need_redis=True) as services:
    print(json.dumps([services.database_url, services.redis_url]), flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """The folder that VETLINE_DATA_DIR names in tests; see conftest.py."""
    return tmp_path / ".vetline"


@contextmanager
def command() -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """Another command, in a process of its own, that holds its services until a line comes on its stdin."""
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    with process:
        assert process.stdout is not None
        try:
            yield process, json.loads(process.stdout.readline())
        finally:
            if process.poll() is None:
                process.communicate("done\n", timeout=30)


def is_kept(data_dir: Path, service: str) -> bool:
    return is_taken(data_dir / service / "kept")


def postgres_answers(url: str) -> bool:
    psycopg.connect(url.replace("+psycopg", ""), connect_timeout=5).close()
    return True


def announcement(name: str) -> RunFile:
    return RunFile(
        pid=1,
        started_at=datetime.now(UTC),
        database_url=f"postgresql://{name}/a",
        redis_url=f"redis://{name}/0",
    )


def test_what_is_configured_is_used_and_nothing_is_started(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://db.example/app")
    monkeypatch.setenv("CELERY_BROKER_URL", "redis://broker.example/3")
    with keep_run_file(data_dir, announcement("up.example")), resolve(need_redis=True) as services:
        assert services.database_url == "postgresql://db.example/app"
        assert services.redis_url == "redis://broker.example/3"
        assert not (data_dir / "postgres").exists()


def test_a_running_up_in_this_folder_is_used(data_dir: Path) -> None:
    with keep_run_file(data_dir, announcement("up.example")):
        with resolve(need_redis=True) as services:
            assert services.database_url == "postgresql://up.example/a"
            assert services.redis_url == "redis://up.example/0"
            assert services.redis_from == "vetline up"
        with pytest.raises(Misuse, match="already"), keep_run_file(data_dir, announcement("second")):
            pass
        assert (data_dir / "run.json").stat().st_mode & 0o077 == 0
    assert read_run_file(data_dir) is None


def test_what_a_dead_up_left_behind_is_not_believed(data_dir: Path) -> None:
    data_dir.mkdir()
    (data_dir / "run.lock").touch()
    (data_dir / "run.json").write_text(announcement("dead.example").model_dump_json())
    assert read_run_file(data_dir) is None


def test_services_are_started_for_a_command_and_stopped_with_it(data_dir: Path) -> None:
    with resolve(need_redis=True) as services:
        assert services.database_from == services.redis_from == "started here"
        assert postgres_answers(services.database_url)
        with redis.Redis.from_url(services.redis_url) as client:
            assert client.ping()
    assert not is_kept(data_dir, "postgres")
    assert not is_kept(data_dir, "redis")
    with pytest.raises(psycopg.OperationalError):
        postgres_answers(services.database_url)


def test_a_command_that_needs_no_redis_starts_none(data_dir: Path) -> None:
    with resolve(need_redis=False) as services:
        assert postgres_answers(services.database_url)
        assert not (data_dir / "redis").exists()
        with pytest.raises(BrokerUnavailable):
            _ = services.redis_url


def test_commands_side_by_side_share_services_until_the_last_ends(data_dir: Path) -> None:
    with command() as (first, first_urls), resolve(need_redis=True) as services:
        assert [services.database_url, services.redis_url] == first_urls
        first.communicate("done\n", timeout=30)
        assert postgres_answers(services.database_url)
    assert not is_kept(data_dir, "postgres")


def test_commands_that_start_at_once_start_one_server(data_dir: Path) -> None:
    with command() as (_, one), command() as (_, two), command() as (_, three):
        assert one == two == three
    wait_for(lambda: not is_kept(data_dir, "postgres"))


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_services_stop_when_their_last_command_is_killed(data_dir: Path, ending: signal.Signals) -> None:
    with command() as (process, urls):
        assert postgres_answers(urls[0])
        process.send_signal(ending)
        process.wait(30)
        wait_for(lambda: not is_kept(data_dir, "postgres") and not is_kept(data_dir, "redis"))
    with pytest.raises(psycopg.OperationalError):
        postgres_answers(urls[0])


def test_rows_stay_from_one_command_to_the_next() -> None:
    with resolve(need_redis=True) as services, redis.Redis.from_url(services.redis_url) as client:
        client.lpush("queue", "due")
        with psycopg.connect(services.database_url.replace("+psycopg", "")) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 1 AS one")
    with resolve(need_redis=True) as services, redis.Redis.from_url(services.redis_url) as client:
        assert client.lrange("queue", 0, -1) == [b"due"]
        with psycopg.connect(services.database_url.replace("+psycopg", "")) as connection:
            assert connection.execute("SELECT one FROM kept").fetchone() == (1,)


def test_a_server_that_died_is_replaced_for_the_next_command(data_dir: Path) -> None:
    with resolve(need_redis=True) as services:
        pid = int((data_dir / "redis" / "redis.pid").read_text())
        subprocess.run(["kill", "-9", str(pid)], check=True)
        wait_for(lambda: not is_kept(data_dir, "redis"))
        with resolve(need_redis=True) as again, redis.Redis.from_url(again.redis_url) as client:
            assert client.ping()
            assert again.database_url == services.database_url


def test_a_keeper_that_is_killed_takes_its_server_with_it_and_is_replaced(data_dir: Path) -> None:
    with resolve(need_redis=True) as services:
        server = int((data_dir / "redis" / "redis.pid").read_text())
        shown = subprocess.run(
            ["ps", "-o", "ppid=", "-p", str(server)], capture_output=True, text=True, check=True
        )
        subprocess.run(["kill", "-9", shown.stdout.strip()], check=True)
        wait_for(lambda: not (data_dir / "redis" / "redis.pid").exists())  # a clean stop removes it
        with resolve(need_redis=True) as again, redis.Redis.from_url(again.redis_url) as client:
            assert client.ping()
            assert again.database_url == services.database_url

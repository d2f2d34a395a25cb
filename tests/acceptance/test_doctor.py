"""`vetline doctor`: what is well, what is not, and an exit code for health checks."""

import json

import pytest
import redis

from moderation.services.redis import LocalRedis
from worker.doctor.command import doctor


def states(capsys: pytest.CaptureFixture[str], *, worker_only: bool = False) -> tuple[int, dict[str, str]]:
    """The exit code, and what was found by name."""
    code = doctor(worker_only=worker_only, as_json=True)
    return code, {check["name"]: check["state"] for check in json.loads(capsys.readouterr().out)}


@pytest.mark.usefixtures("services_env")
def test_a_machine_that_can_judge_has_no_problem(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VETLINE_WORKER_JUDGE", "open-nsfw")
    code, found = states(capsys)
    assert code == 0, found
    assert {found[name] for name in ("postgres", "tables", "redis", "judge", "pillow", "disk")} == {"ok"}
    assert found["workers"] == "note"


def test_a_machine_with_nothing_configured_is_tried(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VETLINE_WORKER_JUDGE", "open-nsfw")
    code, found = states(capsys)
    assert code == 0, found
    assert (found["postgres"], found["redis"], found["tables"]) == ("ok", "ok", "note")


@pytest.mark.usefixtures("services_env")
def test_a_machine_that_could_not_start_sglang_is_told_why_and_what_else_it_could_do(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code = doctor(as_json=True)
    (judge,) = [check for check in json.loads(capsys.readouterr().out) if check["name"] == "judge"]
    assert (code, judge["state"]) == (1, "problem")
    assert "has no sglang" in judge["says"]
    assert "--judge open-nsfw" in judge["says"]


@pytest.mark.usefixtures("services_env")
def test_without_a_worker_the_health_check_fails(capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor(worker_only=True) == 1
    assert "problem  workers" in capsys.readouterr().out


def test_what_is_down_is_one_line_each_and_shows_no_password(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody:wrong@127.0.0.1:1/none")
    monkeypatch.setenv("REDIS_URL", "redis://:wrong@127.0.0.1:1/0")
    monkeypatch.setenv("VETLINE_WORKER_JUDGE", "sglang")
    monkeypatch.setenv("VETLINE_SGLANG_URL", "http://127.0.0.1:1")
    assert doctor() == 1
    said = capsys.readouterr().out
    problems = {line.split()[1] for line in said.splitlines() if line.startswith("problem")}
    assert problems == {"postgres", "redis", "judge"}
    assert "wrong" not in said


def test_missing_tables_are_a_problem_for_a_worker(
    empty_postgres_url: str,
    redis_url: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DATABASE_URL", empty_postgres_url)
    monkeypatch.setenv("REDIS_URL", redis_url)
    assert doctor(worker_only=True) == 1
    assert "vetline db upgrade" in capsys.readouterr().out


def test_a_redis_that_may_drop_messages_is_noted(
    postgres_url: str,
    own_redis: LocalRedis,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with redis.Redis.from_url(own_redis.url) as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
    monkeypatch.setenv("DATABASE_URL", postgres_url)
    monkeypatch.setenv("REDIS_URL", own_redis.url)
    _, found = states(capsys, worker_only=True)
    assert found["redis memory"] == "note"

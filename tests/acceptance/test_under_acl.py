"""A whole run in which each process has its own user in Redis and its own login in Postgres, and none meets a refusal."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from moderation.ledger import pauses, webhooks
from moderation.ledger.engine import open_ledger
from moderation.ledger.feed import EVERYTHING
from moderation.webhook import new_secret
from moderation.cursor import START
from producer import Client
from tests.acceptance.conftest import System
from tests.acceptance.test_flower import body, flower
from tests.support.commands import run
from tests.support.ledger import POLICY
from tests.support.logins import login_url
from tests.support.receiver import Receiver
from tests.support.redis_users import GuardedRedis, guarded_redis
from tests.support.waiting import wait_for

Env = dict[str, str]
_ROLES = {"producer": "vetline_producer", "worker": "vetline_worker", "watcher": "vetline_watcher", "flower": "vetline_watcher"}
_HOOKS = {
    "VETLINE_WEBHOOK_ALLOW_HOSTS": "127.0.0.0/8",
    "VETLINE_WEBHOOK_ALLOW_HTTP": "true",
    "VETLINE_WEBHOOK_LOOK_S": "0.2",
}


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[GuardedRedis]:
    with guarded_redis(tmp_path / "guarded-redis") as server:
        yield server


@pytest.fixture
def each(postgres_url: str, guarded: GuardedRedis) -> Iterator[dict[str, Env]]:
    """The environment of each kind of process."""
    owner = open_ledger(postgres_url)
    with ExitStack() as stack:
        stack.callback(owner.dispose)
        urls = {role: stack.enter_context(login_url(owner, role)) for role in sorted(set(_ROLES.values()))}
        yield {
            user: {"DATABASE_URL": urls[role], "REDIS_URL": guarded.url_of(user)} for user, role in _ROLES.items()
        }


def asked(env: Env, *words: str) -> str:
    """`celery -A worker.app inspect WORDS`, under this user."""
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "celery", "-A", "worker.app", "inspect", *words],
        env=env | {"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, timeout=60,
    )
    return ran.stdout + ran.stderr


def test_a_full_run_under_users_of_their_own_meets_no_refusal(
    system_of: Callable[[str, str], System], postgres_url: str, guarded: GuardedRedis, each: dict[str, Env], tmp_path: Path
) -> None:
    system = system_of(postgres_url, guarded.url_of("producer"))
    worker = system.worker(**each["worker"] | _HOOKS)
    urls = each["producer"]
    with ExitStack() as stack:
        client = stack.enter_context(Client(urls["DATABASE_URL"], urls["REDIS_URL"]))
        receiver = stack.enter_context(Receiver())
        receiver.secret = new_secret()
        webhooks.add_webhook(
            system.engine, "hook", receiver.url(), secret=receiver.secret, wanted=EVERYTHING, start=START
        )
        pages = stack.enter_context(flower(system, **each["flower"]))
        # Submitted by a client, from the command line, and by a plain one of Celery's.
        client.submit(system.image("client"), POLICY, reuse=False)
        folder = tmp_path / "pictures"
        folder.mkdir()
        for number in range(4):
            Path(system.image(f"n{number}", (number, number, number)).removeprefix("file://")).rename(folder / f"{number}.png")
        said = run(tmp_path, "enqueue", str(folder), "--policy", POLICY, env=urls)
        assert said.returncode == 0, said.stderr
        system.wait_for_counts(done=5)
        wait_for(lambda: len(set(receiver.taken)) == 5, what="the webhook's deliveries")
        assert "OK" in asked(each["flower"], "ping")
        # watchers
        told = {word: run(tmp_path, *word.split(), env=each["watcher"]) for word in ("metrics --once", "status", "doctor --worker")}
        assert {word: ran.returncode for word, ran in told.items()} == dict.fromkeys(told, 0), told
        assert 'vetline_service_up{service="redis"} 1.0' in told["metrics --once"].stdout
        wait_for(lambda: "w1" in body(f"{pages}/api/workers?refresh=1"), what="the worker in Flower")
        assert "vetline.urgent" in body(f"{pages}/broker")
        # pause
        pauses.pause(system.engine, pauses.Scope.BATCH, "b")
        client.submit(system.image("paused", (1, 2, 3)), POLICY, reuse=False, batch="b")
        pauses.resume(system.engine, pauses.Scope.BATCH, "b")
        system.wait_for_counts(done=6)
        # every connection cut
        for kind in ("normal", "pubsub"):
            guarded.admin.client_kill_filter(_type=kind, skipme=True)
        wait_for(lambda: "Connection to broker lost" in worker.text, what="the worker to lose its connection")
        client.submit(system.image("after", (3, 2, 1)), POLICY, reuse=False)
        system.wait_for_counts(done=7)
        assert "OK" in asked(each["flower"], "ping")
        assert worker.stop() == 0
    assert guarded.refused() == []

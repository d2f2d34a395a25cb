"""A whole run in which each process has its own user in Redis and its own login in Postgres, and none meets a refusal."""

import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from celery import Celery

from moderation.cursor import START
from moderation.ledger import pauses, webhooks
from moderation.ledger.engine import open_ledger
from moderation.ledger.feed import EVERYTHING
from moderation.queue import make_app
from moderation.services.child import free_port
from moderation.webhook import new_secret
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
_ROLES = {
    "producer": "vetline_producer",
    "plain": "vetline_producer",
    "worker": "vetline_worker",
    "watcher": "vetline_watcher",
    "flower": "vetline_watcher",
}
# What a client that is not ours says on connecting, in vain and without harm.
_NOT_OURS = {
    "plain: client (command)",
    "plain: client|setinfo (command)",
    "plain: client|maint_notifications (command)",
}
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
            user: {"DATABASE_URL": urls[role], "REDIS_URL": guarded.url_of(user)}
            for user, role in _ROLES.items()
        }


@pytest.fixture
def system(
    system_of: Callable[[str, str], System], postgres_url: str, guarded: GuardedRedis, each: dict[str, Env]
) -> Iterator[System]:
    """Its engine is the owner's, to look with; its client submits as a producer does."""
    system = system_of(postgres_url, guarded.url_of("producer"))
    system.client.close()
    with Client(each["producer"]["DATABASE_URL"], each["producer"]["REDIS_URL"]) as client:
        system.client = client
        yield system


def test_a_full_run_under_users_of_their_own_meets_no_refusal(
    system: System, guarded: GuardedRedis, each: dict[str, Env], tmp_path: Path
) -> None:
    worker = system.worker(**each["worker"] | _HOOKS)
    with ExitStack() as stack:
        receiver = stack.enter_context(Receiver())
        deliver(system, receiver)
        pages = stack.enter_context(flower(system, **each["flower"]))
        said = run(tmp_path, "enqueue", folder_of(system, 4), "--policy", POLICY, env=each["producer"])
        assert said.returncode == 0, said.stderr
        system.client.submit(system.image("client"), POLICY, reuse=False)
        with Celery(broker=each["plain"]["REDIS_URL"]) as plain:
            told = {"uri": system.image("plain", (7, 7, 7)), "policy": POLICY}
            plain.send_task("vetline.assess", kwargs=told, queue="vetline")
        system.wait_for_counts(done=6)
        wait_for(lambda: len(set(receiver.taken)) == 6, what="the webhook's deliveries")
        watched(each["watcher"], tmp_path)
        assert "pong" in inspect(each["flower"], "ping")
        wait_for(lambda: "w1" in body(f"{pages}/api/workers?refresh=1"), what="the worker in Flower")
        assert "vetline.urgent" in body(f"{pages}/broker")
        pauses.pause(system.engine, pauses.Scope.BATCH, "b")
        system.client.submit(system.image("paused", (1, 2, 3)), POLICY, reuse=False, batch="b")
        pauses.resume(system.engine, pauses.Scope.BATCH, "b")
        system.wait_for_counts(done=7)
        for kind in ("normal", "pubsub"):
            guarded.admin.client_kill_filter(_type=kind, skipme=True)
        wait_for(lambda: worker.said("Connection to broker lost"), what="the worker to lose its connection")
        system.client.submit(system.image("after", (3, 2, 1)), POLICY, reuse=False)
        system.wait_for_counts(done=8)
        with make_app(each["flower"]["REDIS_URL"]) as app:
            assert "celery@w1" in (app.control.inspect(timeout=2, limit=1).ping() or {})
        assert worker.stop() == 0
    refused = [line for line in guarded.refused() if line not in _NOT_OURS]
    assert refused == []


def deliver(system: System, receiver: Receiver) -> None:
    receiver.secret = new_secret()
    webhooks.add_webhook(
        system.engine, "hook", receiver.url(), secret=receiver.secret, wanted=EVERYTHING, start=START
    )


def folder_of(system: System, count: int) -> str:
    folder = system.folder / "pictures"
    folder.mkdir()
    for n in range(count):
        Path(unquote(urlsplit(system.image(f"n{n}", (n, n, n))).path)).rename(folder / f"{n}.png")
    return str(folder)


def watched(env: Env, folder: Path) -> None:
    """What watches, asked under the watcher's user."""
    ran = {
        line: run(folder, *line.split(), env=env) for line in ("metrics --once", "status", "doctor --worker")
    }
    assert {line: one.returncode for line, one in ran.items()} == dict.fromkeys(ran, 0), ran
    assert 'vetline_service_up{service="redis"} 1.0' in ran["metrics --once"].stdout


def inspect(env: Env, word: str) -> str:
    """`celery -A worker.app inspect WORD`, under this user."""
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "celery", "-A", "worker.app", "inspect", word],
        env=env | {"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    return ran.stdout + ran.stderr


def test_a_worker_that_is_refused_says_what_and_goes_on_once_it_may(
    system: System, guarded: GuardedRedis, each: dict[str, Env]
) -> None:
    """And neither stalls in silence nor leaves its model: it is not ready, and waits."""
    guarded.admin.execute_command("ACL", "SETUSER", "worker", "-brpop")
    probe = str(free_port())
    more = {"VETLINE_PROBE_PORT": probe, "VETLINE_WORKER_STALLED_S": "1"}
    worker = system.worker(ready=False, **each["worker"] | more)
    wait_for(lambda: worker.said("redis_refuses"), what="the refusal")
    wait_for(lambda: "Redis refuses this user" in waits_for(probe), what="the reason on the board")
    assert "'brpop'" in worker.text
    system.client.submit(system.image("a"), POLICY)
    assert worker.process.poll() is None
    guarded.admin.execute_command("ACL", "SETUSER", "worker", "+brpop")
    system.wait_for_counts(done=1)
    assert not worker.said("consumer_stalled")
    assert not worker.said("Frequent restarts")


def waits_for(port: str) -> str:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/status", timeout=5) as answer:
            return str(answer.read().decode())
    except OSError:
        return ""

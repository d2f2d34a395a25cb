"""Plain Celery clients at a real worker: what they send is judged or listed, and nothing of it is lost."""

import json
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from celery import Celery
from sqlalchemy import text

from moderation.ledger import migrate
from moderation.ledger.engine import open_ledger
from moderation.ledger.policies import seed_builtin
from moderation.ledger.rejected import rejected_counts, rejected_messages
from tests.acceptance.conftest import System
from tests.acceptance.test_flower import body, flower
from tests.support.commands import run
from tests.support.ledger import POLICY
from tests.support.plain_client import (
    SEPARATOR,
    celery_node_1,
    celery_node_2,
    celery_php,
    gocelery,
    protocol_2,
)
from tests.support.waiting import wait_for

SOON = {"VETLINE_QUEUE_TAKEN_S": "2"}


@pytest.fixture
def client(system: System) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(system.env["REDIS_URL"]) as client:
        yield client


@pytest.fixture
def app(system: System) -> Iterator[Celery]:
    """Celery as it comes, but for the queue's name."""
    with Celery(broker=system.env["REDIS_URL"]) as app:
        app.conf.task_default_queue = "vetline"
        yield app


def ask(app: Celery, uri: str, policy: str = POLICY, **options: Any) -> str:
    return str(app.send_task("vetline.assess", kwargs={"uri": uri, "policy": policy}, **options).id)


def rows(system: System) -> list[Any]:
    with system.engine.connect() as connection:
        return list(connection.execute(text("SELECT * FROM assessment ORDER BY created_at, id")))


def test_every_priority_is_judged_and_mapped(system: System, app: Celery) -> None:
    for priority in range(10):
        ask(app, system.image(f"p{priority}", (priority, 0, 0)), priority=priority)
    system.worker()
    system.wait_for_counts(done=10)
    by_uri = {row.uri.rpartition("/p")[2][0]: row.priority for row in rows(system)}
    assert by_uri == {str(p): 2 if p >= 6 else 1 for p in range(10)}


@pytest.mark.parametrize("strategy", ["round_robin", "priority", "sorted"])
def test_all_lists_are_read_in_any_order_strategy(system: System, client: redis.Redis, strategy: str) -> None:
    """With steps of a client's own, and in the list `celery` where that is asked for."""
    steps = ("", *(f"{SEPARATOR}{step}" for step in range(1, 10)))
    lists = [f"{queue}{step}" for queue in ("vetline", "celery") for step in steps]
    for number, name in enumerate(lists):
        told = protocol_2(kwargs={"uri": system.image(f"i{number}", (number, 0, 0)), "policy": POLICY})
        client.lpush(name, json.dumps(told))
    system.worker(VETLINE_QUEUE_ORDER_STRATEGY=strategy, VETLINE_QUEUE_PLAIN_ALSO="celery")
    system.wait_for_counts(done=len(lists))


def test_countdown_is_a_row_at_once_and_survives_its_worker(system: System, app: Celery) -> None:
    worker = system.worker()
    ask(app, system.image("later"), countdown=4)
    wait_for(lambda: rows(system), what="the row")
    (row,) = rows(system)
    assert row.state == "queued"
    assert row.ring_at == row.not_before
    worker.kill()
    system.worker()
    system.wait_for_counts(done=1)
    (row,) = rows(system)
    assert row.claimed_at >= row.ring_at if row.ring_at else row.ended_at


def test_what_waits_until_it_expires_is_cancelled_and_not_judged(system: System, app: Celery) -> None:
    worker = system.worker()
    system.server.stop_listening()  # the gate shuts, and nothing is judged
    system.client.submit(system.image("shuts"), POLICY)
    wait_for(lambda: worker.said("gate_shut"), what="the gate shut")
    ask(app, system.image("late"), expires=2)
    wait_for(lambda: system.counts().get("cancelled") == 1, timeout_s=20, what="the expiry")
    late = next(row for row in rows(system) if row.uri.endswith("late.png"))
    assert (late.state, late.error_code) == ("cancelled", "expired")
    system.server.listen()
    system.wait_for_counts(done=1, cancelled=1)


@pytest.mark.parametrize("point", ["after_plain_pop", "before_plain_done"])
def test_a_worker_killed_with_a_message_in_hand_loses_and_doubles_nothing(
    system: System, app: Celery, client: redis.Redis, point: str
) -> None:
    for number in range(5):
        ask(app, system.image(f"i{number}", (number, 0, 0)))
    dying = system.worker(ready=False, VETLINE_FAULT=f"{point}=kill", **SOON)
    dying.process.wait(timeout=30)
    assert client.hlen("vetline.taken") == 5, "in hand of a dead worker"
    assert len(rows(system)) == (0 if point == "after_plain_pop" else 5)
    system.worker(**SOON)
    system.wait_for_counts(done=5)
    wait_for(
        lambda: not client.exists("vetline.taken", "vetline.taken_at", "vetline"), what="nothing left in hand"
    )
    assert len(rows(system)) == 5


def test_the_same_task_id_is_one_row_however_often_it_comes(system: System, app: Celery) -> None:
    system.worker()
    for _ in range(3):
        ask(app, system.image("once"), task_id="6f3cb2f5-3f4d-4a55-8d0c-3d1a1f0a7a11")
    system.wait_for_counts(done=1)
    ask(app, system.image("once"), task_id="6f3cb2f5-3f4d-4a55-8d0c-3d1a1f0a7a11")
    ask(app, system.image("twice"))
    system.wait_for_counts(done=2)


@pytest.mark.parametrize("write", [celery_node_1, celery_node_2, gocelery, celery_php])
def test_other_clients_messages_are_judged(
    system: System, client: redis.Redis, write: Callable[[str, str], bytes]
) -> None:
    client.lpush("vetline", write(system.image("a"), POLICY))
    system.worker()
    system.wait_for_counts(done=1)


def test_what_cannot_be_a_row_is_listed_under_its_reason(
    system: System, app: Celery, client: redis.Redis
) -> None:
    worker = system.worker()
    ask(app, system.image("a"), policy="not-there")
    app.send_task("vetline.assess", kwargs={"url": "x", "policy": POLICY})
    app.send_task("vetline.assess", kwargs={"id": "17"})
    ask(app, "data:image/png;base64," + "A" * 9_000)
    app.send_task("tasks.add", (1, 2))
    client.lpush("vetline", b"no JSON", b"no JSON")
    client.lpush("vetline.due", b"nor this", json.dumps(protocol_2([], {}, vetline_more=5)))
    wanted = {
        "unknown_policy": 1, "bad_arguments": 2, "bad_id": 1, "invalid_submission": 1, "unknown_task": 1, "not_json": 2,
    }  # fmt: skip
    wait_for(lambda: rejected_counts(system.engine) == wanted, what=f"{wanted}")
    twice = next(m for m in rejected_messages(system.engine, code="not_json") if m["bytes"] == 7)
    assert (twice["times"], twice["queue"]) == (2, "vetline")
    assert worker.process.poll() is None
    system.client.submit(system.image("b"), POLICY)
    system.wait_for_counts(done=1)


def test_messages_wait_in_redis_while_postgres_is_away(
    system_of: Callable[[str, str], System], own_postgres: Any, redis_url: str
) -> None:
    engine = open_ledger(own_postgres.url)
    migrate.upgrade(engine)
    seed_builtin(engine)
    engine.dispose()
    system = system_of(own_postgres.url, redis_url)
    worker = system.worker()
    own_postgres.stop()
    with Celery(broker=redis_url) as app:
        for number in range(3):
            app.send_task(
                "vetline.assess",
                kwargs={"uri": system.image(f"i{number}", (number, 0, 0)), "policy": POLICY},
                queue="vetline",
            )
    wait_for(lambda: worker.said("plain_messages_wait"), what="it was tried")
    own_postgres.restart()
    system.engine.dispose()
    system.wait_for_counts(done=3)


def test_a_frozen_workers_messages_are_one_row_each(system: System, app: Celery, client: redis.Redis) -> None:
    """It was taken for dead, and goes on: what it had in hand came to another worker meanwhile."""
    sleeper = system.worker(VETLINE_FAULT="before_plain_done=sleep:5", **SOON)
    for number in range(3):
        ask(app, system.image(f"i{number}", (number, 0, 0)))
    wait_for(lambda: client.hlen("vetline.taken"), what="messages in hand")
    sleeper.send(signal.SIGSTOP)
    start = time.monotonic()
    system.worker(**SOON)
    system.wait_for_counts(done=3)
    wait_for(lambda: not client.exists("vetline.taken"), what="nothing in hand")
    assert time.monotonic() - start > 1
    sleeper.send(signal.SIGCONT)
    assert len(rows(system)) == 3


def test_flower_shows_the_clients_task_with_its_assessment_or_the_reason(system: System, app: Celery) -> None:
    with flower(system) as url, system.worker():
        good = ask(app, system.image("a"))
        bad = ask(app, system.image("b"), policy="not-there")
        tasks = lambda: json.loads(body(f"{url}/api/tasks"))  # noqa: E731 - read twice
        wait_for(lambda: {good, bad} <= tasks().keys(), what="both tasks")
        found = tasks()
        assert (found[bad]["state"], found[good]["state"]) == ("FAILURE", "SUCCESS")
        assert "rejected_unknown_policy" in found[bad]["exception"]
        wait_for(lambda: rows(system), what="the row")
        assert str(rows(system)[0].id) in found[good]["result"]


def test_the_doctor_tells_of_messages_that_nobody_reads(
    system: System, client: redis.Redis, app: Celery, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in system.env.items():
        monkeypatch.setenv(name, value)
    ask(app, system.image("a"), queue="celery", priority=9)
    said = run(system.folder, "doctor", "--worker").stdout
    assert "1 messages lie in the list celery, which no worker reads" in said
    assert (
        "celery"
        not in run(system.folder, "doctor", "--worker", env={"VETLINE_QUEUE_PLAIN_ALSO": "celery"}).stdout
    )

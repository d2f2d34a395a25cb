"""Thousands of messages that nobody should send, at a real worker: it goes on judging, and none of them takes its place.

`VETLINE_TEST_MESSAGES=5000 pytest tests/acceptance/test_hostile_messages.py` pushes as many into each list; without it
some hundreds.
"""

import json
import os
import time
import urllib.request
from collections.abc import Iterator
from itertools import chain, islice
from typing import Any

import psutil
import pytest
import redis
from sqlalchemy import text

from moderation.ledger.rejected import rejected_messages
from tests.acceptance.conftest import System
from tests.acceptance.test_flower import body, flower, status
from tests.support.hostile_messages import hand_made, mutated, ring
from tests.support.ledger import POLICY
from tests.support.waiting import wait_for
from tests.support.worker import RunningWorker

COUNT = int(os.environ.get("VETLINE_TEST_MESSAGES", "600"))
LISTS = ("vetline", "vetline.due", "vetline.urgent", "vetline\x06\x166")
CHANNELS = ("/{db}.celery.pidbox", "/{db}.celeryev/worker.heartbeat")
MOST_GROWTH = 150 * 2**20  # bytes of memory; one decompressed body would be 20 MB, and there are dozens


@pytest.fixture
def client(system: System) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(system.env["REDIS_URL"]) as client:
        yield client


def hostile(seed: int) -> list[bytes]:
    """All kinds of the hand-made ones, evenly, and as many mutated ones."""
    made = list(hand_made())
    half = min(len(made), COUNT // 2)
    return [*made[:: max(1, len(made) // half)], *islice(mutated(seed), COUNT - half)]


def memory(worker: RunningWorker) -> int:
    return int(psutil.Process(worker.pid).memory_info().rss)


def judges_on(system: System, worker: RunningWorker, name: str) -> None:
    """As many at once as it has threads, so that a slot that leaked would be missed."""
    tickets = [system.client.submit(system.image(f"{name}{n}", (n, 50, 0)), POLICY).id for n in range(16)]
    done = text("SELECT count(*) FROM assessment WHERE id = ANY(:ids) AND state = 'done'")

    def count() -> int:
        assert worker.process.poll() is None, worker.text[-3000:]
        with system.engine.connect() as connection:
            return int(connection.execute(done, {"ids": tickets}).scalar_one())

    wait_for(lambda: count() == len(tickets), timeout_s=60, what=f"16 verdicts, of {count()}")


@pytest.mark.timeout(900)
def test_no_message_in_a_list_ends_a_worker_or_takes_a_slot(system: System, client: redis.Redis) -> None:
    worker = system.worker()
    judges_on(system, worker, "before")
    before = memory(worker)
    for seed, name in enumerate(LISTS):
        messages = hostile(seed)
        for start in range(0, len(messages), 200):
            client.lpush(name, *messages[start : start + 200])
    wait_for(lambda: not client.exists(*LISTS, "vetline.taken"), timeout_s=600, what="all of them read")
    judges_on(system, worker, "after")
    assert memory(worker) - before < MOST_GROWTH
    assert "Unrecoverable" not in worker.text
    assert "Traceback" not in worker.text
    assert rejected_messages(system.engine, limit=1)
    assert in_hand(worker) == 0
    assert worker.stop() == 0


@pytest.mark.timeout(600)
def test_what_comes_by_remote_control_and_events_ends_neither_worker_nor_its_answers(
    system: System, client: redis.Redis
) -> None:
    worker = system.worker()
    database = client.connection_pool.connection_kwargs["db"]
    for seed, channel in enumerate(CHANNELS):
        for message in hostile(10 + seed):
            client.publish(channel.format(db=database), message)
    for command in commands():
        client.publish(f"/{database}.celery.pidbox", command)
    judges_on(system, worker, "after")
    assert "Unrecoverable" not in worker.text
    assert worker.stop() == 0


def commands() -> Iterator[bytes]:
    """Well-formed around, odd within."""
    odd: list[Any] = [None, 5, [], [1], {}, {"a": 1}, "x", "x" * 70_000]
    told = [
        {
            "method": "ping",
            "arguments": {},
            "destination": None,
            "reply_to": None,
            "ticket": "t",
            "pattern": None,
        },
        {"method": "rate_limit", "arguments": {"task_name": [], "rate_limit": {}}},
        {"method": "revoke", "arguments": {"task_id": {"a": 1}}},
        {"method": "time_limit", "arguments": {"task_name": 5, "hard": "x"}},
        {"method": "query_task", "arguments": {"ids": 5}},
        {"method": "no_such_command", "arguments": {}},
    ]
    for name in ("method", "arguments", "destination", "reply_to", "ticket", "pattern", "matcher"):
        told += [{**told[0], name: value} for value in odd]
    for said in chain(told, odd):
        message = ring() | {"body": json.dumps(said)}
        message["properties"].pop("body_encoding")
        message["headers"] = {"clock": 1, "expires": 2**40}
        yield json.dumps(message).encode()


def in_hand(worker: RunningWorker) -> int:
    """By its probe."""
    port = next(
        int(json.loads(line)["port"])
        for line in worker.text.splitlines()
        if '"event": "probes_listen"' in line
    )
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/status", timeout=10) as answer:
        return int(json.load(answer)["in_hand"])


@pytest.mark.timeout(300)
def test_flower_outlives_what_comes_as_events_and_answers(system: System, client: redis.Redis) -> None:
    with flower(system) as url, system.worker() as worker:
        judges_on(system, worker, "before")
        database = client.connection_pool.connection_kwargs["db"]
        for message in [*hostile(20), *events()]:
            client.publish(f"/{database}.celeryev/task.received", message)
        judges_on(system, worker, "after")
        done = system.client.submit(system.image("last"), POLICY).id
        wait_for(lambda: status(f"{url}/task/{done}") == 200, timeout_s=30, what="a task after all of that")
        for page in ("/workers", "/tasks", "/broker", "/metrics", "/api/tasks", "/api/workers?refresh=1"):
            assert status(url + page) == 200, page
        assert "<script>alert" not in body(f"{url}/task/{HOSTILE_TASK}")
        assert "\x1b" not in body(f"{url}/task/{HOSTILE_TASK}")
        assert status(f"{url}/explain/{done}") == 200


HOSTILE_TASK = "0190aaaa-0000-7000-8000-000000000001"


def events() -> Iterator[bytes]:
    """Well-formed around, odd within; and one that is well-formed and hostile in its texts."""
    odd: list[Any] = [None, "x", -1, 2**70, 1e308, [], [1], {}, {"a": 1}, "x" * 70_000]
    told = {
        "type": "task-received",
        "uuid": HOSTILE_TASK,
        "hostname": "w1",
        "timestamp": time.time(),
        "clock": 1,
        "pid": 1,
    }
    evil = "<script>alert(1)</script>\x1b[2J\u202e" + "(" * 50_000
    told |= {"name": "vetline.assess", "args": evil, "kwargs": evil, "retries": 0, "utcoffset": 0}
    said: list[Any] = [told, *odd, [told, *odd], *({**told, name: value} for name in told for value in odd)]
    for event in said:
        message = ring() | {"body": json.dumps(event), "headers": {"hostname": "w1"}}
        message["properties"].pop("body_encoding")
        yield json.dumps(message).encode()

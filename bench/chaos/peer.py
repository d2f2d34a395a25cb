"""The peer: the same number of kills over plain Celery on Redis with its recommended settings.

A task sleeps as long as our judge takes and notes its id in a Redis of its own, which is not touched. What was sent
and never noted is lost. Settings: late acknowledgement, reject on worker lost, prefetch 1, a short visibility timeout
with its sweep at every poll, remote control on; what Celery's documentation and issue tracker advise for this broker.

    python -m bench.chaos --peer
"""

import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol
from uuid import NAMESPACE_URL, uuid5

import redis
from celery import Celery
from kombu.exceptions import OperationalError
from rich.console import Console

from bench.chaos.history import History, read_history
from bench.chaos.monkey import Monkey
from bench.chaos.plan import Plan
from bench.chaos.workers import Workers
from bench.plain_celery import plain_celery
from moderation.services.postgres import LocalPostgres
from moderation.services.redis import LocalRedis

_QUEUE = "celery"
_SETTLE_S = 45.0  # three visibility timeouts without a change: nothing more will come
_VISIBILITY_S = 15


def make_app(broker: str) -> Celery:
    """A short visibility timeout with its sweep at every poll, and connections that are tried for ever."""
    return plain_celery(
        broker,
        broker_connection_max_retries=None,
        broker_transport_options={
            "visibility_timeout": _VISIBILITY_S,
            "unacked_restore_interval": 1,
            "unacked_restore_throttle": 1,
            "unacked_mutex_expire": 5,
            "socket_timeout": 10,
        },
    )


app = make_app(os.environ.get("PEER_BROKER", "redis://127.0.0.1:1/0"))


@app.task(name="peer.judge")
def judge(item: int, latency_s: float) -> None:
    """Stands for judging: notes who has it in hand, waits, notes that it is done."""
    notes = redis.Redis.from_url(os.environ["PEER_NOTES"])
    worker = os.environ["PEER_WORKER"]
    notes.hincrby("in_hand", worker, 1)
    time.sleep(latency_s)
    with notes.pipeline() as both:
        both.rpush("done", item)
        both.hincrby("in_hand", worker, -1)
        both.execute()


def run(plan: Plan, folder: Path, *, plain: bool = False) -> dict[str, int]:
    """Sent, lost and doubled after the plan's kills.

    plain: what plain clients send to Vetline: all priorities, a fifth with a countdown, and a Redis that keeps all.
    """
    with ExitStack() as stack:
        broker = stack.enter_context(
            LocalRedis.start(folder / "broker", appendonly=plain, fsync="always" if plain else "everysec")
        )
        notes = stack.enter_context(LocalRedis.start(folder / "notes", appendonly=False))
        postgres = stack.enter_context(
            LocalPostgres.start(folder / "postgres")
        )  # the monkey's; nothing uses it
        history = History(folder / "history.jsonl")
        workers = Workers(
            ["-m", "bench.chaos.peer", "worker"],
            {"PEER_BROKER": broker.url, "PEER_NOTES": notes.url, "PEER_THREADS": str(plan.threads)},
            plan.workers,
            folder,
            history,
            up=b" ready.",
        )
        client = stack.enter_context(redis.Redis.from_url(notes.url))
        monkey = Monkey(
            plan,
            workers,
            history=history,
            busy=lambda: {
                name.decode() for name, count in client.hgetall("in_hand").items() if int(count) > 0
            },
            postgres=postgres,
            redis_server=broker,
        )
        workers.start()
        send_and_break(plan, _Sender(broker.url, plan, plain=plain), monkey)
        monkey.rest()
        _settle(client)
        workers.dismiss()
        done = Counter(int(item) for item in client.lrange("done", 0, -1))
    lost = sum(number not in done for number in range(plan.items))
    kills = sum(event["event"] == "kill" for event in read_history(history.path))
    ran_twice = sum(count > 1 for count in done.values())
    return {"accepted": plan.items, "lost": lost, "doubled": ran_twice, "kills": kills}


class _Sender:
    """Sends one item after the other, as long as it takes."""

    def __init__(self, broker: str, plan: Plan, *, plain: bool) -> None:
        self._app, self._plan, self._plain = make_app(broker), plan, plain

    def send(self, item: int) -> None:
        options = plain_options(item) if self._plain else {}
        until_sent(
            lambda: self._app.send_task(
                "peer.judge", (item, self._plan.latency_s), queue=_QUEUE, retry=False, **options
            )
        )


def plain_options(item: int) -> dict[str, Any]:
    """Each priority in its turn, and a countdown of some seconds for every fifth; the id is the item's."""
    countdown = {"countdown": 5 + item % 20} if item % 5 == 0 else {}
    return {"priority": item // 5 % 10, "task_id": str(uuid5(NAMESPACE_URL, f"item-{item}"))} | countdown


def until_sent(send: Callable[[], object]) -> None:
    """As a client does that must not lose it: while Redis is away, the same again."""
    while True:
        try:
            send()
        except OperationalError:
            time.sleep(0.2)
        else:
            return


class Sender(Protocol):
    def send(self, item: int) -> None: ...


def send_and_break(plan: Plan, sender: Sender, monkey: Monkey) -> None:
    """Spread the faults over the items: each while its share of them is being sent."""
    faults = plan.faults
    per_step = -(-plan.items // max(1, len(faults)))
    for step, fault in enumerate(faults):
        monkey.wait_for_the_workers()
        share = range(step * per_step, min(plan.items, (step + 1) * per_step))
        sending = threading.Thread(target=_send_all, args=(sender, share))
        sending.start()
        monkey.do(fault)
        sending.join()
        if step % 20 == 0:
            Console(stderr=True).print(f"fault {step}/{len(faults)}")


def _send_all(sender: Sender, items: range) -> None:
    for item in items:
        sender.send(item)


def _settle(client: redis.Redis) -> None:
    """Until nothing has been noted for a while."""
    last, since = -1, time.monotonic()
    while time.monotonic() - since < _SETTLE_S:
        if (now := int(client.llen("done"))) != last:
            last, since = now, time.monotonic()
        time.sleep(0.5)


def worker(name: str) -> None:
    os.environ["PEER_WORKER"] = name
    app.worker_main(
        ["worker", "-P", "threads", "-c", os.environ["PEER_THREADS"], "-n", name, "-l", "INFO",
         "--without-gossip", "--without-mingle"]
    )  # fmt: skip


def only_kills(plan: Plan) -> Plan:
    """The part of a plan that plain Celery is put to: it has no ledger to flush Redis under."""
    return replace(plan, poison=0, freezes=0, flushes=0, redis_kills=0, postgres_stops=0)


if __name__ == "__main__":
    worker(sys.argv[2])

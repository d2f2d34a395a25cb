"""Assessments a second through whole workers whose judge answers at once; beside them the same number of Celery's.

Everything is submitted before the workers start, and the clock runs from a tenth to the whole of it: neither loading
Python nor the first connection counts.
"""

import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import psutil
import redis
from PIL import Image
from sqlalchemy import text

from bench.plain_celery import plain_celery
from bench.queue import peers
from bench.queue.ground import POLICY, CpuWatch, Ground, wait_until
from bench.queue.plan import Plan
from moderation.ledger import counters
from producer import Client

_LIMIT_S = 600.0


def run(ground: Ground, plan: Plan) -> dict[str, Any]:
    """Each kind that the plan has items for."""
    bare = [f"s3://bucket/{number:09d}.jpg" for number in range(plan.assessments)]
    found = {"queue_alone": _ours(ground, plan, bare, "--bare")}
    if plan.pictures:
        files = _pictures(ground)
        found["with_fetch_and_decode"] = _ours(
            ground, plan, [files[n % len(files)] for n in range(plan.pictures)]
        )
    if plan.tasks_of_peers:
        found["celery_no_op"] = _peer(ground, plan, "nothing")
        found["celery_one_insert"] = _peer(ground, plan, "insert")
    return found


def _pictures(ground: Ground) -> list[str]:
    folder = ground.folder / "pictures"
    folder.mkdir()
    for number in range(50):
        Image.new("RGB", (64, 48), (number, 2 * number, 99)).save(folder / f"{number}.png")
    return [path.as_uri() for path in sorted(folder.iterdir())]


def _ours(ground: Ground, plan: Plan, uris: list[str], *options: str) -> dict[str, Any]:
    before = _ended(ground)
    with Client(ground.database_url, ground.redis_url) as client:
        client.submit_many(uris, POLICY, batch="full load")
    with ExitStack() as stack:
        workers = [
            stack.enter_context(
                ground.process(
                    "bench.queue.judge", f"w{number}-{before}", str(plan.threads), *options, name=f"w{number}-{before}",
                    VETLINE_FETCH_FILE_ROOTS=str(ground.folder),
                )
            )
            for number in range(plan.workers)
        ]  # fmt: skip
        return _timed(ground, workers, lambda: _ended(ground) - before, len(uris))


def _peer(ground: Ground, plan: Plan, task: str) -> dict[str, Any]:
    peers.Apart.metadata.create_all(ground.engine)
    with redis.Redis.from_url(ground.redis_url) as client, plain_celery(ground.redis_url) as app:
        client.delete(peers.QUEUE)
        app.signature(f"peer.{task}", kwargs={"uri": "s3://bucket/1.jpg", "policy": POLICY}).apply_async()
        message = client.lpop(peers.QUEUE)
        for _ in range(plan.tasks_of_peers // 500):
            client.lpush(peers.QUEUE, *[message] * 500)
        count = int(client.llen(peers.QUEUE))
        with ExitStack() as stack:
            workers = [
                stack.enter_context(
                    ground.process("bench.queue.peers", str(plan.threads), name=f"{task}-{number}")
                )
                for number in range(plan.workers)
            ]
            return _timed(ground, workers, lambda: count - int(client.llen(peers.QUEUE)), count)


def _timed(
    ground: Ground, workers: list[psutil.Process], ended: Callable[[], int], count: int
) -> dict[str, Any]:
    wait_until(lambda: ended() >= count // 10, limit_s=_LIMIT_S, what="a tenth", workers=workers)
    first, started = ended(), time.perf_counter()
    watch = CpuWatch(workers=workers, postgres=[ground.postgres], redis=[ground.redis])
    wait_until(lambda: ended() >= count, limit_s=_LIMIT_S, what="the whole", workers=workers)
    took_s = time.perf_counter() - started
    return {"items": count, "per_s": round((count - first) / took_s, 1), "cores_busy": watch.cores()}


def _ended(ground: Ground) -> int:
    found = counters.counts(ground.engine)
    assert not found.get("failed"), _failures(ground)
    return found.get("done", 0)


def _failures(ground: Ground) -> str:
    with ground.engine.connect() as connection:
        return str(
            connection.execute(text("SELECT error_detail FROM assessment WHERE state = 'failed'")).first()
        )

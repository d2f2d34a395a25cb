"""Submissions a second from one process, its memory meanwhile, and the peer that sends task after task.

usage: python -m bench.queue.submissions COUNT     prints a JSON line; the process that is measured
"""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import islice
from typing import Any

import psutil

from bench.plain_celery import plain_celery
from bench.queue.ground import POLICY, Ground
from bench.queue.plan import Plan
from moderation.ledger import counters
from producer import Client

_SAMPLES = 20  # of memory, over the whole


def run(ground: Ground, plan: Plan) -> dict[str, Any]:
    said = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "bench.queue.submissions", str(plan.submissions)],
        env=ground.env | {"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    result: dict[str, Any] = json.loads(said.stdout)
    result["in_ledger"] = sum(counters.counts(ground.engine).values())
    return result | {"apply_async_per_s": _apply_async(ground, plan.sent_by_peer)}


def _apply_async(ground: Ground, count: int) -> float:
    app = plain_celery(ground.redis_url)
    task = app.signature("peer.nothing", kwargs={"uri": _uri(0), "policy": POLICY})
    task.apply_async()  # connected, warm
    started = time.perf_counter()
    for number in range(count):
        app.signature("peer.nothing", kwargs={"uri": _uri(number), "policy": POLICY}).apply_async()
    took_s = time.perf_counter() - started
    app.close()
    return round(count / took_s, 1)


def _uri(number: int) -> str:
    return f"s3://bucket-of-crawls/2026/11/24/{number:012d}/image.jpg"


def _submit(count: int) -> dict[str, Any]:
    own, samples = psutil.Process(), []
    every = max(1, count // _SAMPLES)

    def watched() -> Iterator[str]:
        for number in range(count):
            if number % every == 0:
                samples.append([number, round(own.memory_info().rss / 2**20, 1)])
            yield _uri(number)

    with Client() as client:
        client.submit_many(islice((_uri(-n - 1) for n in range(2000)), 2000), POLICY, batch="warm-up")
        started, cpu = time.perf_counter(), own.cpu_times()
        total = client.submit_many(watched(), POLICY, batch="crawl-7")
        took_s, after = time.perf_counter() - started, own.cpu_times()
    samples.append([count, round(own.memory_info().rss / 2**20, 1)])
    return {
        "submitted": total.accepted,
        "per_s": round(count / took_s, 1),
        "cpu_us_each": round(1e6 * (after.user + after.system - cpu.user - cpu.system) / count, 1),
        "memory_mib": samples,
    }


if __name__ == "__main__":
    print(json.dumps(_submit(int(sys.argv[1]))))

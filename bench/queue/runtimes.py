"""Many simulated runtimes on one ledger: is each kept full, and what is busy meanwhile?

A runtime answers after a second, and has as many slots as images a second; with no slot ever empty it judges at its
rate. Its worker holds twice as many items, so that one waits for each slot.
"""

import time
from contextlib import ExitStack
from typing import Any

from sqlalchemy import text

from bench.queue.ground import POLICY, CpuWatch, Ground, wait_until
from bench.queue.plan import Plan
from moderation.ledger import counters
from producer import Client

_BY_WORKER = text("SELECT worker, count(*) AS n FROM attempt WHERE outcome = 'done' GROUP BY worker")
_FULL = 0.97


def run(ground: Ground, plan: Plan) -> dict[str, Any]:
    rate = plan.images_per_s
    count = int(plan.runtimes * rate * (plan.watch_s + plan.settle_s + 15 + 3 * plan.runtimes))
    with Client(ground.database_url, ground.redis_url) as client:
        client.submit_many((f"s3://bucket/{n}.jpg" for n in range(count)), POLICY, batch="many runtimes")
    with ExitStack() as stack:
        workers = [
            stack.enter_context(
                ground.process(
                    "bench.queue.judge", f"r{number}", str(2 * rate), "--bare", "--images-per-s", str(rate),
                    name=f"r{number}",
                )
            )
            for number in range(plan.runtimes)
        ]  # fmt: skip
        wait_until(
            lambda: len(_by_worker(ground)) == plan.runtimes, limit_s=300, what="all at work", every_s=0.5
        )
        time.sleep(plan.settle_s)
        before, started = _by_worker(ground), time.perf_counter()
        watch = CpuWatch(workers=workers, postgres=[ground.postgres], redis=[ground.redis])
        time.sleep(plan.watch_s)
        cores, took_s = watch.cores(), time.perf_counter() - started
        after = _by_worker(ground)
        left = counters.counts(ground.engine).get("queued", 0)
        for worker in workers:
            worker.terminate()  # all drain at once
    each = sorted((after[name] - before.get(name, 0)) / took_s for name in after)
    return {
        "runtimes": plan.runtimes,
        "images_per_s_each": rate,
        "wanted_per_s": plan.runtimes * rate,
        "per_s": round(sum(each), 1),
        "slowest_per_s": round(each[0], 1),
        "fastest_per_s": round(each[-1], 1),
        "kept_full": sum(one >= _FULL * rate for one in each),
        "cores_busy": cores,
        "still_queued": left,
    }


def _by_worker(ground: Ground) -> dict[str, int]:
    with ground.engine.connect() as connection:
        return {row.worker: row.n for row in connection.execute(_BY_WORKER)}

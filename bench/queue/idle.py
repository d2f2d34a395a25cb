"""How long a high-priority item takes through an idle worker, from the call of submit to the verdict in Postgres."""

import time
from collections.abc import Sequence
from statistics import quantiles
from typing import Any
from uuid import UUID

import psycopg

from bench.queue.ground import POLICY, Ground
from bench.queue.plan import Plan
from producer import Client

_WARM_UP = 20
_PAUSE_S = 0.02  # between two items: the worker is idle again
_LIMIT_S = 60.0


def run(ground: Ground, plan: Plan) -> dict[str, Any]:
    """Milliseconds; the judge itself takes none of them."""
    with (
        ground.process("bench.queue.judge", "idle", str(plan.threads), "--bare", name="idle"),
        Client(ground.database_url, ground.redis_url) as client,
        psycopg.connect(ground.database_url.replace("+psycopg", ""), autocommit=True) as reader,
    ):
        times = [_one(client, reader, number) for number in range(_WARM_UP + plan.idle)][_WARM_UP:]
    return {
        "items": len(times),
        **percentiles([whole for _, whole in times]),
        "submit_ms": percentiles([submit for submit, _ in times]),
    }


def _one(client: Client, reader: "psycopg.Connection[Any]", number: int) -> tuple[float, float]:
    """Seconds until submit returned, and until the verdict stood."""
    time.sleep(_PAUSE_S)
    started = time.perf_counter()
    ticket = client.submit(f"s3://bucket/idle-{number}.jpg", POLICY, priority="high")
    submitted = time.perf_counter() - started
    while not _stands(reader, ticket.id):
        if time.perf_counter() - started > _LIMIT_S:
            raise TimeoutError("an idle worker that does not work")
        time.sleep(0.001)
    return submitted, time.perf_counter() - started


def _stands(reader: "psycopg.Connection[Any]", id_: UUID) -> bool:
    return reader.execute("SELECT 1 FROM verdict WHERE assessment_id = %s", (id_,)).fetchone() is not None


def percentiles(seconds: Sequence[float]) -> dict[str, float]:
    cuts = quantiles(seconds, n=100, method="inclusive")
    return {f"p{n}_ms": round(1000 * cuts[n - 1], 2) for n in (50, 90, 99)}

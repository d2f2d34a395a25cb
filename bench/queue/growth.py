"""What statements cost as the ledger grows from a thousand rows to ten million: half of them done, half waiting.

The rows are made by one statement with triggers and foreign keys off, and their counts written beside them; they are
the ledger's rows in all else. Ten batches share them.
"""

import time
from collections.abc import Callable
from statistics import median
from typing import Any
from uuid import UUID

from sqlalchemy import Engine, text

from bench.queue.ground import POLICY, Ground
from bench.queue.plan import Plan
from moderation.assessment import Claim, Submission
from moderation.ledger import counters
from moderation.ledger.claim import beat, claim
from moderation.ledger.engine import transaction
from moderation.ledger.policies import PinnedPolicy, pin
from moderation.ledger.record import record_all
from moderation.ledger.relay import Due, ring_due
from moderation.ledger.submit import new_id, submit
from tests.support.ledger import verdict

_GROUP = 16

_FILL = text("""
    INSERT INTO assessment (id, uri, policy, policy_revision_id, batch, priority, state, attempt, charged, created_at,
                            ended_at, ring_at)
    SELECT uuidv7(), 's3://bucket-of-crawls/2026/11/' || n || '/image.jpg', :policy, :revision,
           'crawl-' || n % 10, 1, CASE WHEN n % 20 < 10 THEN 'done' ELSE 'queued' END, (n % 20 < 10)::int,
           (n % 20 < 10)::int, now() - interval '1 day', CASE WHEN n % 20 < 10 THEN now() - interval '1 hour' END,
           CASE WHEN n % 20 >= 10 THEN now() - interval '1 day' + n * interval '1 ms' END
    FROM generate_series(CAST(:first AS integer), CAST(:last AS integer)) AS n
""")
_COUNTED = text("""
    INSERT INTO tally AS t (batch, tenant, state, n)
    SELECT 'crawl-' || n % 10, '', CASE WHEN n % 20 < 10 THEN 'done' ELSE 'queued' END, count(*)
    FROM generate_series(CAST(:first AS integer), CAST(:last AS integer)) AS n GROUP BY 1, 3
    ON CONFLICT (batch, tenant, state) DO UPDATE SET n = t.n + excluded.n
""")
_PAGE = 500_000
_EXACT = text("SELECT state, count(*) AS n FROM assessment GROUP BY state")


def run(ground: Ground, plan: Plan) -> dict[str, Any]:
    """Median milliseconds of each statement at each size."""
    pinned = pin(ground.engine, [POLICY])
    found: dict[str, Any] = {}
    rows = 0
    for size in sorted(plan.rows):
        _fill(ground.engine, pinned[POLICY], rows, size)
        rows = size
        # No more often than there are waiting rows for: half of them.
        times = min(plan.times, size // 2 // (_GROUP + 1))
        found[str(size)] = _timed_all(ground.engine, pinned, times)
    assert _exact(ground.engine) == counters.counts(ground.engine), "the tally is exact"
    return found


def _fill(engine: Engine, policy: PinnedPolicy, rows: int, size: int) -> None:
    for first in range(rows, size, _PAGE):
        values = {
            "policy": policy.policy,
            "revision": policy.id,
            "first": first,
            "last": min(first + _PAGE, size) - 1,
        }
        with transaction(engine, patience_s=600) as connection:
            connection.execute(text("SET LOCAL session_replication_role = replica"))
            connection.execute(_FILL, values)
            connection.execute(_COUNTED, values)
    patient = engine.execution_options(isolation_level="AUTOCOMMIT")
    with patient.connect() as connection:
        connection.execute(text("SET statement_timeout = '10min'"))
        connection.execute(text("VACUUM (ANALYZE) assessment"))
        connection.execute(text("CHECKPOINT"))
        connection.execute(text("RESET statement_timeout"))


def _timed_all(engine: Engine, pinned: dict[str, PinnedPolicy], times: int) -> dict[str, float]:
    rung: list[Due] = []
    ring = _times(times, lambda: ring_due(engine, rung.extend, urgent=100, others=_GROUP + 1))
    ids = [due.id for due in rung]
    ones, groups = ids[:times], ids[times:]
    held: list[list[Claim]] = []

    def one() -> None:
        held.append(claim(engine, [ones.pop()], worker="w", lease_s=600))

    def several() -> None:
        held.append(claim(engine, _popped(groups, _GROUP), worker="w", lease_s=600))

    found = {
        "status": _times(times, lambda: (counters.counts(engine), counters.pace(engine))),
        "status_of_a_batch": _times(
            times, lambda: (counters.counts(engine, batch="crawl-3"), counters.pace(engine))
        ),
        "relay_of_17": ring,
        "claim": _times(times, one),
        "claim_of_16": _times(times, several),
        "beat": _times(times, lambda: beat(engine, held[-1], lease_s=600)),
    }
    assert sum(map(len, held)) == len(ids), "each was claimed once"
    judged = iter(held)
    found["record"] = _times(
        times, lambda: record_all(engine, [(c, verdict()) for c in next(judged)], worker="w")
    )
    found["record_of_16"] = _times(
        times, lambda: record_all(engine, [(c, verdict()) for c in next(judged)], worker="w")
    )
    found["submit"] = _times(times, lambda: submit(engine, [_submission()], pinned, [new_id()]))
    return {name: round(value, 2) for name, value in found.items()}


def _popped(ids: list[UUID], count: int) -> list[UUID]:
    taken, ids[:] = ids[:count], ids[count:]
    return taken


def _submission() -> Submission:
    return Submission(uri="s3://bucket/new.jpg", policy=POLICY, batch="crawl-3")


def _times(times: int, act: Callable[[], object]) -> float:
    """Median of so many calls, in milliseconds."""
    taken = []
    for _ in range(times):
        started = time.perf_counter()
        act()
        taken.append(time.perf_counter() - started)
    return 1000 * median(taken)


def _exact(engine: Engine) -> dict[str, int]:
    with transaction(engine, patience_s=600) as connection:
        return {row.state: row.n for row in connection.execute(_EXACT)}

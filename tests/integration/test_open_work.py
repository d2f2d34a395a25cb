"""open_work: how much the scaler's workers have to do, and for how long it has waited; what is paused is not it."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Engine, text

from moderation.ledger import pauses
from moderation.ledger.migrate import upgrade
from moderation.ledger.pauses import Scope
from tests.support.ledger import claimed, submitted, take_back

_SEEN = "SELECT open, age_s FROM open_work"
OLD, NEW = "old-batch", "newsroom"


def seen(engine: Engine) -> tuple[int, int]:
    with engine.connect() as connection:
        row = connection.execute(text(_SEEN)).one()
    return row.open, row.age_s


def aged(engine: Engine, seconds: int, where: str = "true") -> None:
    with engine.connect() as connection:
        connection.execute(
            text(
                f"UPDATE assessment SET ring_at = now() - interval '{seconds} seconds' WHERE ring_at IS NOT NULL AND {where}"
            )
        )


@pytest.fixture
def waiting(ledger: Engine) -> Engine:
    """Two of an old batch of the default policy, one of another policy, one low: 900, 90 and 5000 s old."""
    for _ in range(2):
        submitted(ledger, batch=OLD, tenant="acme")
    submitted(ledger, policy=NEW)
    submitted(ledger, priority=2, tenant="other")
    aged(ledger, 5000)
    aged(ledger, 900, f"batch = '{OLD}'")
    aged(ledger, 90, f"policy = '{NEW}'")
    return ledger


def test_nothing_waits_in_an_empty_ledger(ledger: Engine) -> None:
    assert seen(ledger) == (0, 0)
    pauses.pause(ledger, Scope.POLICY, NEW)
    assert seen(ledger) == (0, 0)


def test_with_no_pause_all_is_counted_and_the_oldest_that_is_not_low_tells_the_age(waiting: Engine) -> None:
    assert seen(waiting) == (4, 900)


@pytest.mark.parametrize(
    ("scope", "name", "found"),
    [
        (Scope.BATCH, OLD, (2, 90)),
        (Scope.TENANT, "acme", (2, 90)),
        (Scope.POLICY, "llavaguard-default", (1, 90)),
        (Scope.POLICY, NEW, (3, 900)),
        (Scope.BATCH, "another", (4, 900)),
        (Scope.EVERYTHING, "", (0, 0)),
    ],
)
def test_what_is_paused_asks_for_no_worker(
    waiting: Engine, scope: Scope, name: str, found: tuple[int, int]
) -> None:
    pauses.pause(waiting, scope, name)
    assert seen(waiting) == found
    pauses.resume(waiting, scope, name)
    assert seen(waiting) == (4, 900)


def test_pauses_add_up(waiting: Engine) -> None:
    pauses.pause(waiting, Scope.POLICY, NEW)
    pauses.pause(waiting, Scope.BATCH, OLD)
    assert seen(waiting) == (1, 0), "the low one, whose age counts not"


def test_what_is_rung_or_running_is_open_unless_its_policy_is_paused(ledger: Engine) -> None:
    submitted(ledger, rung=True)
    claimed(ledger)
    submitted(ledger, rung=True, policy=NEW)
    claimed(ledger, submitted(ledger, policy=NEW))
    assert seen(ledger)[0] == 4
    pauses.pause(ledger, Scope.POLICY, NEW)
    assert seen(ledger)[0] == 2


def test_one_that_was_freed_tells_no_age_and_one_put_off_is_not_due(waiting: Engine) -> None:
    """Freed rows are rung first by a time of 1970, which is not how long they have waited."""
    pauses.pause(waiting, Scope.TENANT, "nobody")
    with waiting.connect() as connection:
        connection.execute(text(f"UPDATE assessment SET ring_at = 'epoch' WHERE batch = '{OLD}'"))
        connection.execute(
            text(f"UPDATE assessment SET ring_at = now() + interval '1 hour' WHERE policy = '{NEW}'")
        )
    assert seen(waiting) == (4, 0)


_MANY = """
    INSERT INTO assessment (id, uri, policy, policy_revision_id, batch, priority, ring_at)
    SELECT uuidv7(), 's3://crawl/' || n, policy, id, 'crawl-' || n % 20, n % 3, now() - n * interval '1 ms'
    FROM generate_series(1, 40000) AS n, policy_revision WHERE policy = 'llavaguard-default'
"""


def _scans(node: dict[str, Any]) -> list[dict[str, Any]]:
    """What a plan did on assessment, as it went: rows read in all loops."""
    below = [found for child in node.get("Plans", ()) for found in _scans(child)]
    return [*below, node] if node.get("Relation Name") == "assessment" and node["Actual Loops"] else below


def _rows_read(engine: Engine, column: str) -> int:
    """By index steps alone: fails on a scan of the whole table."""
    with engine.connect() as connection:
        shown = connection.execute(
            text(f"EXPLAIN (ANALYZE, FORMAT JSON) SELECT {column} FROM open_work")
        ).scalar_one()
    plan = shown if isinstance(shown, list) else json.loads(shown)
    scans = _scans(plan[0]["Plan"])
    assert all(node["Node Type"].startswith(("Index", "Bitmap")) for node in scans), scans
    return round(sum(node["Actual Rows"] * node["Actual Loops"] for node in scans))


@pytest.fixture
def full(ledger: Engine) -> Engine:
    with ledger.connect() as connection:
        connection.execute(text(_MANY))
        connection.execute(text("ANALYZE assessment"))
    return ledger


def test_a_full_ledger_costs_the_scaler_a_look_at_each_lane(full: Engine) -> None:
    assert _rows_read(full, "open") == 0
    assert _rows_read(full, "age_s") <= 2
    pauses.pause(full, Scope.BATCH, "crawl-3")
    assert _rows_read(full, "open") == 0
    lanes = 20 * 3
    assert _rows_read(full, "age_s") <= 3 * lanes
    assert seen(full)[0] == 38_000
    pauses.pause(full, Scope.POLICY, NEW)
    assert seen(full)[0] == 38_000
    assert _rows_read(full, "open") <= 38_000 + 2 * lanes


def test_the_view_of_before_comes_back_with_its_grants(ledger: Engine) -> None:
    may: Callable[[], bool] = lambda: _may_read(ledger)  # noqa: E731 - asked three times
    assert may()
    submitted(ledger, batch=OLD)
    aged(ledger, 90)
    take_back(ledger, "0011")
    pauses.pause(ledger, Scope.BATCH, OLD)
    assert seen(ledger) == (0, 90), "as before: the age heeds no pause of a batch"
    assert may()
    upgrade(ledger)
    assert seen(ledger) == (0, 0)
    assert may()


def _may_read(engine: Engine) -> bool:
    with engine.connect() as connection:
        return bool(
            connection.execute(
                text("SELECT has_table_privilege('vetline_scaler', 'open_work', 'SELECT')")
            ).scalar_one()
        )

"""A small chaos run: real kills of real workers and services, counted from the history and the database."""

from pathlib import Path

import pytest

from bench.chaos.plain import only_what_plain_clients_meet, run_plain
from bench.chaos.plan import Plan
from bench.chaos.run import run

SMALL = Plan(
    items=300,
    poison=2,
    kills=12,
    freezes=0,
    flushes=1,
    redis_kills=1,
    postgres_stops=1,
    workers=3,
    lease_s=6,
    latency_s=0.1,
    pace_s=1,
    limit_s=150,
)


@pytest.mark.chaos
@pytest.mark.timeout(240)
def test_nothing_is_lost_or_doubled_when_everything_is_killed(tmp_path: Path) -> None:
    outcome = run(SMALL, tmp_path)
    assert outcome.accepted == SMALL.items
    assert (outcome.lost, outcome.doubled, outcome.still_open) == (0, 0, 0)
    assert outcome.failed == {"poison": SMALL.poison}, "what kills is set aside, and nothing else is"
    assert outcome.verdicts == SMALL.items - SMALL.poison
    assert outcome.faults["kill"] == SMALL.kills
    assert outcome.charged_again == 0, "a death is no charge"
    assert outcome.breaches == []
    assert outcome.given_out.keys() == {"feed", "consumer", "webhook"}
    assert outcome.given_out_agrees, outcome.given_out
    assert {found.in_table for found in outcome.given_out.values()} == {outcome.verdicts}


@pytest.mark.chaos
@pytest.mark.timeout(240)
def test_rolling_restarts_charge_nothing(tmp_path: Path) -> None:
    plan = Plan(
        items=120,
        poison=0,
        kills=0,
        terms=6,
        freezes=0,
        flushes=0,
        redis_kills=0,
        postgres_stops=0,
        workers=2,
        lease_s=6,
        pace_s=1,
    )
    outcome = run(plan, tmp_path)
    assert (outcome.verdicts, outcome.lost, outcome.doubled) == (plan.items, 0, 0)
    assert (outcome.charged_again, outcome.judged_again) == (0, 0)
    assert outcome.breaches == []
    assert outcome.given_out_agrees, outcome.given_out
    assert outcome.gone_s_max is not None
    assert outcome.gone_s_max < 30


@pytest.mark.chaos
@pytest.mark.timeout(240)
def test_what_plain_clients_send_is_judged_once_whatever_is_killed(tmp_path: Path) -> None:
    plan = Plan(items=150, kills=8, redis_kills=2, workers=2, lease_s=6, latency_s=0.1, pace_s=1, limit_s=150)
    outcome = run_plain(only_what_plain_clients_meet(plan), tmp_path)
    assert (outcome.sent, outcome.verdicts, outcome.lost, outcome.doubled) == (150, 150, 0, 0)
    assert (outcome.kills, outcome.redis_kills, outcome.rejected, outcome.breaches) == (8, 2, 0, [])
    assert outcome.priorities == {"normal": 90, "low": 60}

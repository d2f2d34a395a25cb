"""The bench of upgrades at its smallest, from this release to itself: that it runs, swaps and counts rightly."""

import sys
from pathlib import Path

import pytest

from bench.upgrade.run import Plan, upgrade_under_way

ROOT = Path(__file__).parents[2]
SMALLEST = Plan(items=80, later=20, workers=1, threads=2, latency_s=2.0, before_upgrade=0.05, limit_s=200)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_both_releases_work_and_all_is_counted(tmp_path: Path) -> None:
    here = (ROOT, sys.executable)
    outcome = upgrade_under_way(SMALLEST, tmp_path, old=here, new=here)
    assert outcome.good, outcome
    assert (outcome.counted.accepted, outcome.counted.verdicts) == (SMALLEST.items, SMALLEST.items)
    assert sum(outcome.verdicts_by_release.values()) == SMALLEST.items
    assert outcome.at_migration.states["running"] > 0

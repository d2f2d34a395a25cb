"""The bench of the queue at its smallest: that it runs and counts rightly. What it takes is not looked at. About 20 s."""

from pathlib import Path

import pytest

from bench.queue import plot
from bench.queue.__main__ import measure
from bench.queue.plan import PARTS, Plan

SMALLEST = Plan(
    submissions=3000, sent_by_peer=20, assessments=200, pictures=0, tasks_of_peers=0, workers=1, threads=4, idle=5,
    runtimes=1, images_per_s=5, settle_s=0.0, watch_s=2.0, rows=(2000, 4000), times=5,
)  # fmt: skip


@pytest.mark.timeout(300)
def test_every_part_counts_what_it_did(tmp_path: Path) -> None:
    results = measure(SMALLEST, PARTS, tmp_path)
    submissions = results["submissions"]
    assert (submissions["submitted"], submissions["in_ledger"]) == (3000, 5000), "and 2,000 to warm up"
    assert len(submissions["memory_mib"]) == 21
    assert results["assessments"]["queue_alone"]["items"] == 200
    assert results["idle"]["items"] == 5
    assert results["runtimes"]["per_s"] > 0
    assert set(results["growth"]) == {"2000", "4000", "took_s"}
    plot.draw(results, tmp_path / "queue.png")
    assert (tmp_path / "queue.png").stat().st_size > 10_000

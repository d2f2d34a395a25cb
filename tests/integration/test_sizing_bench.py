"""What a verdict leaves, measured at its smallest; and the page's table, which is what the results multiply to."""

from pathlib import Path

from bench.queue.ground import ground
from bench.sizing.measure import GROUP, measure
from bench.sizing.table import Figures, read, table
from tests.support.pages import section


def test_the_table_of_the_page_is_what_the_results_say() -> None:
    """Measured anew: `python -m bench.sizing --table` into docs/operations.md."""
    assert table(read()) in section("docs/operations.md", "Sizing")


def test_a_verdict_leaves_rows_indexes_log_and_commits(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    with ground(tmp_path / "ground") as on:
        found = measure(on, 120, warm_up=30)
    assert 2 / GROUP <= found["commits"] < 1, "a claim and a record of each group, a share of a submission"
    assert found["bytes"] == sum(sum(each.values()) for each in found["bytes_by_table"].values())
    assert all(each["table"] > 100 for each in found["bytes_by_table"].values())
    assert found["wal_bytes"] > found["bytes"] / 2
    assert 500 < found["message_bytes"] < 5000


def test_figures_are_multiplied_and_shown_in_the_units_that_people_order_by() -> None:
    figures = Figures(
        images_per_s=50,
        postgres_ms=(0.2, 2.0),
        redis_ms=(0.1, 0.1),
        worker_ms=10,
        sglang_ms=40,
        bytes=4000,
        index_bytes=1000,
        wal_bytes=10_000,
        message_bytes=1500,
        ceiling_per_s=4000,
    )
    rows = {
        cells[1]: cells[2:-1]
        for line in table(figures).splitlines()
        if (cells := [c.strip() for c in line.split("|")])
    }
    assert rows["images/s"] == ["50", "800", "12,800"]
    assert rows["of what one ledger was seen to write"] == ["1%", "20%", "320%"]
    assert rows["Postgres: cores"] == ["0.01 to 0.1", "0.16 to 1.6", "2.6 to 26"]
    assert rows["Redis: cores, of the one that it can use"] == ["0.005", "0.08", "1.3"]
    assert rows["disk, a day"] == ["17 GB", "276 GB", "4.4 TB"]
    assert rows["write-ahead log, a second"] == ["500 KB", "8 MB", "128 MB"]
    assert rows["connections of workers"] == ["8", "128", "2,048"]
    assert rows["SGLang's processes: cores"] == ["2", "32", "512"]

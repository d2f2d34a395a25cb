"""A report says what a filter would do to a collection, above all where it would leave nothing of a class."""

import json
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine
from typer.testing import CliRunner

from consumer.cli.verdicts import commands
from consumer.report.folder import write_report
from consumer.report.summary import Report, make_report
from moderation.errors import NotFound
from moderation.ledger.export import ExportFilter, snapshot
from moderation.ledger.outcomes import fail
from moderation.ledger.retention import clear_uris
from moderation.ledger.retry import cancel_queued
from moderation.ledger.selection import Selection
from moderation.verdict import Rating
from tests.support.ledger import claimed, record, submitted, verdict

CLASSES = "https://images.test/set"


def judge(
    engine: Engine, folder: str, *, safe: int = 0, unsafe: int = 0, failed: int = 0, **fields: Any
) -> None:
    for number, kind in enumerate(["safe"] * safe + ["unsafe"] * unsafe + ["failed"] * failed):
        uri = f"{CLASSES}/{folder}/{number}.jpg"
        item = claimed(engine, submitted(engine, uri, metadata={"label": folder}, **fields))
        if kind == "failed":
            fail(engine, item, NotFound("404"), worker="w1", timings_ms={})
            continue
        rating, category = Rating.SAFE, "NA: None applying"
        if kind == "unsafe":
            rating, category = Rating.UNSAFE, "O6: Weapons or Substance Abuse"
        record(engine, item, verdict(rating=rating, category=category), worker="w1")


@pytest.fixture
def collection(ledger: Engine) -> Engine:
    """Five classes: one untouched, one that loses a little, one that loses half, one emptied, one that only failed."""
    judge(ledger, "teapot", safe=10, batch="b")
    judge(ledger, "cat", safe=9, unsafe=1, batch="b")
    judge(ledger, "tank", safe=3, unsafe=3, batch="b")
    judge(ledger, "syringe|*[x](y)*", unsafe=4, batch="b")
    judge(ledger, "gone", failed=3, batch="b")
    submitted(ledger, f"{CLASSES}/open/1.jpg", batch="b", metadata={"label": "open"})
    submitted(ledger, f"{CLASSES}/other/1.jpg", batch="other")
    cancel_queued(ledger, Selection(batch="other"))
    return ledger


def reported(engine: Engine, choice: ExportFilter = ExportFilter(), **how: Any) -> Report:  # noqa: B008 - it is frozen
    with snapshot(engine) as connection:
        return make_report(connection, choice, **how)


@pytest.mark.parametrize("group_by", ["folder", "metadata:label"])
def test_a_class_that_is_emptied_or_loses_much_is_warned_of(collection: Engine, group_by: str) -> None:
    report = reported(collection, ExportFilter(batch="b"), group_by=group_by)
    assert report.grouping is not None
    prefix = f"{CLASSES}/" if group_by == "folder" else ""
    shares = {(group.name or "").removeprefix(prefix): group.share for group in report.grouping.shown}
    assert shares == {"syringe|*[x](y)*": 1, "gone": 0, "tank": 0.5, "cat": 0.1, "teapot": 0, "open": 0}
    assert {g.name for g in report.grouping.shown if g.emptied} == {
        f"{prefix}syringe|*[x](y)*",
        f"{prefix}gone",
    }
    assert (report.grouping.groups, report.grouping.emptied, report.grouping.losing) == (6, 2, 3)
    warned = "\n".join(report.warnings)
    assert "syringe|*[x](y)*' is emptied: of 4, 4 Unsafe" in warned
    assert "gone' is emptied: of 3, 3 failed" in warned
    assert "tank' loses 50% of what was judged: 3 Unsafe" in warned
    assert "cat" not in warned
    assert "open'" not in warned, "it may yet get a verdict"


def test_what_has_no_verdict_is_counted_by_its_state_and_never_as_safe(collection: Engine) -> None:
    report = reported(collection)
    counts = report.counts
    assert (counts.total, counts.safe, counts.unsafe) == (35, 22, 8)
    assert (counts.queued, counts.running, counts.failed, counts.cancelled) == (1, 0, 3, 1)
    assert report.without_verdict == 5
    assert report.warnings[0].startswith(
        "5 of 35 have no verdict (queued 1, running 0, failed 3, cancelled 1)"
    )
    assert {(g.name, g.total) for g in report.batches.shown} == {("b", 34), ("other", 1)}
    assert [(c.name, c.rating, c.n) for c in report.categories] == [
        ("NA: None applying", "Safe", 22),
        ("O6: Weapons or Substance Abuse", "Unsafe", 8),
    ]


def test_a_group_is_no_longer_known_by_a_folder_that_was_cleared(collection: Engine) -> None:
    from datetime import UTC, datetime, timedelta

    list(clear_uris(collection, datetime.now(UTC) + timedelta(seconds=5), rows=100))
    report = reported(collection, ExportFilter(batch="b"), group_by="folder")
    assert report.grouping is not None
    assert {(g.name, g.total) for g in report.grouping.shown} == {(None, 33), (f"{CLASSES}/open", 1)}


@pytest.mark.parametrize(
    ("uri", "folder"),
    [
        ("https://h.test/a/b/c.jpg?x=/y/z#/q", "https://h.test/a/b"),
        ("https://h.test/c.jpg", "https://h.test"),
        ("https://user:secret@h.test/a/c.jpg?sig=secret", "https://h.test/a"),
        ("s3://bucket/a/b/c.jpg", "s3://bucket/a/b"),
        ("file:///data/tiger%20cat/1.jpg", "file:///data/tiger%20cat"),
        ("data:image/png;base64,AA//", None),
    ],
)
def test_the_folder_of_an_image_is_what_stands_before_its_name(
    ledger: Engine, uri: str, folder: str | None
) -> None:
    submitted(ledger, uri)
    report = reported(ledger, group_by="folder")
    assert report.grouping is not None
    assert [group.name for group in report.grouping.shown] == [folder]


def test_a_report_of_nothing_is_a_report(ledger: Engine, tmp_path: Path) -> None:
    report = reported(ledger, group_by="folder")
    assert (report.counts.total, report.warnings) == (0, ())
    write_report(report, tmp_path)
    assert (tmp_path / "report.md").exists()


def test_the_pages_hold_names_as_text_and_the_plots_are_pictures(collection: Engine, tmp_path: Path) -> None:
    judge(collection, "<script>alert(1)</script>$x$", unsafe=1, batch="b")
    plots = write_report(reported(collection, group_by="metadata:label"), tmp_path / "report")
    assert plots == ["categories.png", "metadata.png", "batch.png"]
    for name in plots:
        assert (tmp_path / "report" / name).read_bytes().startswith(b"\x89PNG\r\n")
    page = (tmp_path / "report" / "report.html").read_text()
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)" in page
    text = (tmp_path / "report" / "report.md").read_text()
    (line,) = (line for line in text.splitlines() if line.startswith("| syringe"))
    assert line.startswith(r"| syringe\|\*\[x\](y)\* | 4 | 0 | 4 | 100.0% | 0 | EMPTIED |")
    assert r"\<script\>" in text
    told = json.loads((tmp_path / "report" / "report.json").read_text())
    assert told["counts"]["unsafe"] == 9
    assert told["warnings"]


@pytest.mark.usefixtures("services_env")
def test_the_command_warns_on_stderr_and_writes_the_report_beside_the_file(
    collection: Engine, tmp_path: Path
) -> None:
    output, folder = tmp_path / "safe.jsonl", tmp_path / "report"
    words = ["--batch", "b", "--safe", "--output", str(output), "--with-report", str(folder)]
    ended = CliRunner().invoke(commands, [*words, "--group-by", "metadata:label", "--warn-share", "0.05"])
    assert ended.exit_code == 0, ended.output
    assert len(output.read_text().splitlines()) == 22
    assert "label 'gone' is emptied" in ended.stderr
    assert "label 'cat' loses 10%" in ended.stderr, "five in a hundred was asked for"
    told = json.loads((folder / "report.json").read_text())
    assert told["counts"]["unsafe"] == 8, "shares need what is left out as well"


@pytest.mark.usefixtures("services_env")
def test_without_matplotlib_the_report_has_no_plots_and_says_so(
    collection: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    ended = CliRunner().invoke(commands, ["--with-report", str(tmp_path / "report")])
    assert ended.exit_code == 0, ended.output
    assert "pip install 'vetline[plots]'" in ended.stderr
    assert "png" not in (tmp_path / "report" / "report.html").read_text()

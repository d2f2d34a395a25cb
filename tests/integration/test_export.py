"""Verdicts as files: every form holds the same, typed where it has types, whole or not there at all."""

import csv
import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from pyarrow import parquet as pq
from sqlalchemy import Engine

from bench.export import measure_export
from consumer.export.formats import ExportFormat
from consumer.export.run import ExportRequest, export
from moderation.errors import BadSetting, InvalidSubmission, UnknownPolicy, VetlineError
from moderation.ledger.engine import open_ledger
from moderation.ledger.export import COLUMNS, ColumnKind, ExportFilter
from moderation.ledger.policies import seed_builtin
from moderation.verdict import Rating
from tests.support.commands import run
from tests.support.ledger import claimed, record, submitted, verdict
from tests.support.many import judge_many

NAMES = [column.name for column in COLUMNS]
HOSTILE = "=cmd|' /C calc'!A0"


@pytest.fixture
def three(ledger: Engine) -> list[str]:
    """The ids of three verdicts in their order: plain, with all that is awkward in a file, and Unsafe with a score."""
    plain = claimed(ledger)
    record(ledger, plain, verdict(), worker="w1")
    awkward = claimed(
        ledger, submitted(ledger, batch="-b", key="@k", metadata={"a": [1, None, 'q"'], "é": "ü\u2028"})
    )
    record(ledger, awkward, verdict(rationale=f'{HOSTILE}\r\n"two", lines; tab\t'), worker="w1")
    unsafe = claimed(ledger, submitted(ledger, batch="b"))
    found = verdict(rating=Rating.UNSAFE, category="O4: Nudity Content", p_unsafe=0.75)
    record(ledger, unsafe, found, worker="w1")
    return [str(item.id) for item in (plain, awkward, unsafe)]


@pytest.fixture
def exported(ledger: Engine, tmp_path: Path) -> Callable[..., Path]:
    def write(form: ExportFormat, **choice: Any) -> Path:
        path = tmp_path / f"verdicts.{form}"
        export(ledger, ExportRequest(choice=ExportFilter(**choice), form=form, output=path))
        return path

    return write


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def test_parquet_read_by_pyarrow_and_by_duckdb_holds_what_the_lines_hold(
    three: list[str], exported: Callable[..., Path]
) -> None:
    moments = ("submitted_at", "recorded_at")
    lines = [
        line | {name: datetime.fromisoformat(line[name]) for name in moments}
        for line in lines_of(exported(ExportFormat.JSONL))
    ]
    path = exported(ExportFormat.PARQUET)
    by_pyarrow = pq.read_table(path).to_pylist()
    with duckdb.connect() as connection:
        cursor = connection.execute("SET timezone = 'UTC'").execute(
            "SELECT * FROM read_parquet(?)", [str(path)]
        )
        assert cursor.description is not None
        names = [column[0] for column in cursor.description]
        by_duckdb = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
    assert [row["id"] for row in by_pyarrow] == three
    for rows in (by_pyarrow, by_duckdb):
        assert [list(row) for row in rows] == [NAMES] * 3
        assert [as_line(row) for row in rows] == lines


def as_line(row: dict[str, Any]) -> dict[str, Any]:
    """A row of Parquet as JSON lines have it."""
    return row | {"metadata": json.loads(row["metadata"]) if row["metadata"] else None}


def test_parquet_has_types_of_its_own_and_says_what_each_column_is(
    three: list[str], exported: Callable[..., Path]
) -> None:
    schema = pq.read_schema(exported(ExportFormat.PARQUET))
    kinds = {
        ColumnKind.TEXT: pa.string(),
        ColumnKind.WORD: pa.dictionary(pa.int32(), pa.string()),
        ColumnKind.INT32: pa.int32(),
        ColumnKind.INT64: pa.int64(),
        ColumnKind.REAL: pa.float64(),
        ColumnKind.FLAG: pa.bool_(),
        ColumnKind.TIME: pa.timestamp("us", tz="UTC"),
        ColumnKind.JSON: pa.string(),
    }
    assert {field.name: field.type for field in schema} == {c.name: kinds[c.kind] for c in COLUMNS}
    told = json.loads(schema.metadata[b"vetline"])["columns"]
    assert told == {column.name: column.says for column in COLUMNS}
    assert schema.field("p_unsafe").metadata[b"description"].startswith(b"P(unsafe)")
    assert not schema.field("rating").nullable


def test_every_column_is_documented_as_it_is() -> None:
    text = (Path(__file__).parents[2] / "docs" / "exports.md").read_text()
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| `")]
    assert rows == [[f"`{c.name}`", c.kind.value, c.says] for c in COLUMNS]


def test_csv_is_read_back_whole_and_runs_nothing_in_a_spreadsheet(
    three: list[str], exported: Callable[..., Path]
) -> None:
    with exported(ExportFormat.CSV).open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    lines = lines_of(exported(ExportFormat.JSONL))
    assert [row["id"] for row in rows] == three
    awkward = rows[1]
    assert awkward["rationale"] == "'" + lines[1]["rationale"]
    assert (awkward["batch"], awkward["key"]) == ("'-b", "'@k")
    assert not any(cell[:1] in "=+-@\t\r" for row in rows for cell in row.values() if cell)
    assert (rows[0]["batch"], rows[0]["p_unsafe"], rows[0]["needs_review"]) == ("", "", "false")
    assert float(rows[2]["p_unsafe"]) == 0.75
    assert json.loads(awkward["metadata"]) == lines[1]["metadata"]


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ({}, 1000),
        ({"rating": "Unsafe"}, 20),
        ({"rating": "Safe"}, 980),
        ({"category": "O2"}, 3),
        ({"batch": "many"}, 1000),
        ({"batch": "none"}, 0),
        ({"policy": "llavaguard-default"}, 1000),
        ({"policy": "llavaguard-default", "revision": 1}, 1000),
        ({"policy": "strict"}, 0),
        ({"score_from": 0.25, "score_to": 0.5}, 251),
        ({"score_from": 0.99, "rating": "Unsafe"}, 0),
        ({"since": datetime(2026, 1, 1, 0, 10, tzinfo=UTC)}, 402),
        ({"until": datetime(2026, 1, 1, 0, 10, tzinfo=UTC)}, 598),
        (
            {
                "since": datetime(2026, 1, 1, 0, 5, tzinfo=UTC),
                "until": datetime(2026, 1, 1, 0, 10, tzinfo=UTC),
            },
            300,
        ),
    ],
)
def test_only_what_was_chosen_is_exported(
    ledger: Engine, exported: Callable[..., Path], choice: dict[str, Any], expected: int
) -> None:
    judge_many(ledger, 1000)  # number n is recorded n + 1 s after the year's start, with P(unsafe) n / 1000
    ids = [row["id"] for row in lines_of(exported(ExportFormat.JSONL, **choice))]
    assert len(ids) == expected
    assert ids == sorted(ids), "in the order of their commits"


@pytest.mark.parametrize("form", [ExportFormat.JSONL, ExportFormat.CSV, ExportFormat.PARQUET])
def test_a_file_is_whole_or_not_there(
    ledger: Engine, three: list[str], tmp_path: Path, form: ExportFormat
) -> None:
    path = tmp_path / "verdicts"
    path.write_text("the last one")

    def stop(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export(ledger, ExportRequest(choice=ExportFilter(), form=form, output=path), on_rows=stop)
    assert path.read_text() == "the last one"
    assert [file.name for file in tmp_path.iterdir()] == ["verdicts"]
    (tmp_path / "folder").mkdir()
    with pytest.raises(VetlineError, match="cannot write"):
        export(ledger, ExportRequest(choice=ExportFilter(), form=form, output=tmp_path / "folder"))
    with pytest.raises(BadSetting, match="No such file"):
        export(ledger, ExportRequest(choice=ExportFilter(), form=form, output=tmp_path / "none" / "x"))


@pytest.mark.parametrize("form", [ExportFormat.JSONL, ExportFormat.CSV, ExportFormat.PARQUET])
def test_an_export_of_nothing_is_an_empty_file_of_its_form(
    exported: Callable[..., Path], form: ExportFormat
) -> None:
    path = exported(form)
    if form is ExportFormat.PARQUET:
        assert pq.read_table(path).num_rows == 0
        assert pq.read_schema(path).names == NAMES
    else:
        assert path.read_bytes().decode() == ("" if form is ExportFormat.JSONL else ",".join(NAMES) + "\r\n")


def test_without_pyarrow_parquet_says_how_to_get_it(
    exported: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(BadSetting, match=r"pip install 'vetline\[parquet\]'"):
        exported(ExportFormat.PARQUET)
    assert list(tmp_path.iterdir()) == []


def test_memory_does_not_grow_with_the_export(postgres_url: str, tmp_path: Path) -> None:
    engine = open_ledger(postgres_url)
    seed_builtin(engine)
    judge_many(engine, 5_000)
    few = measure_export(postgres_url, "jsonl", tmp_path)
    judge_many(engine, 20_000, batch="more", start="2026-02-01 00:00+00", first=5_001)
    engine.dispose()
    many = measure_export(postgres_url, "jsonl", tmp_path)
    assert (few.rows, many.rows) == (5_000, 25_000)
    # Held as a whole, 20,000 more rows took 73 MiB more.
    assert many.peak_mib - few.peak_mib < 25


@pytest.mark.usefixtures("services_env")
def test_the_command_writes_what_the_files_name_says(tmp_path: Path, postgres_url: str) -> None:
    engine = open_ledger(postgres_url)
    seed_builtin(engine)
    judge_many(engine, 60)
    engine.dispose()
    ended = run(tmp_path, "verdicts", "--unsafe", "--output", "bad.parquet", "--fail-on", "unsafe")
    assert (ended.returncode, ended.stdout) == (4, ""), ended.stderr
    assert "1 verdicts in bad.parquet" in ended.stderr
    assert pq.read_table(tmp_path / "bad.parquet").column("rating").to_pylist() == ["Unsafe"]


@pytest.mark.parametrize(
    ("words", "error", "said"),
    [
        (["--since", "yesterday"], InvalidSubmission, "--since takes"),
        (["--category", "nudity"], InvalidSubmission, "--category takes an id"),
        (["--min-score", "7"], InvalidSubmission, "probabilities"),
        (["--unsafe", "--safe"], InvalidSubmission, "leave nothing"),
        (["--output", "x.txt"], InvalidSubmission, "say --format"),
        (["--format", "table", "--output", "x.csv"], InvalidSubmission, "for a terminal"),
        (["--group-by", "colour", "--with-report", "r"], InvalidSubmission, "--group-by takes"),
        (["--group-by", "folder"], InvalidSubmission, "--with-report"),
        (["--policy", "No Such"], UnknownPolicy, "names no policy"),
    ],
)
def test_a_choice_that_means_nothing_is_refused(
    words: list[str], error: type[VetlineError], said: str
) -> None:
    from typer.testing import CliRunner

    from consumer.cli.verdicts import commands

    ended = CliRunner().invoke(
        commands, ["verdicts", *words] if len(commands.registered_commands) > 1 else words
    )
    assert isinstance(ended.exception, error), ended.output
    assert said in str(ended.exception)

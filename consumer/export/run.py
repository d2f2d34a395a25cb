"""Runs one export: filtered verdicts into a file or onto standard output, with a report of the same snapshot beside it."""

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Engine

from consumer.export.formats import ExportFormat, open_format
from consumer.output_file import opened
from consumer.report.summary import Report, make_report
from moderation.ledger.export import COLUMNS, ExportFilter, snapshot, verdict_pages

_RATING = next(n for n, column in enumerate(COLUMNS) if column.name == "rating")


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """What to export, and how. output: None means standard output. group_by, warn_share: of the report.

    raw: CSV without what keeps a spreadsheet from running it.
    """

    choice: ExportFilter
    form: ExportFormat
    output: Path | None
    limit: int | None = None
    report: bool = False
    group_by: str | None = None
    warn_share: float = 0.0
    raw: bool = False


@dataclass(slots=True)
class ExportResult:
    """What came of it."""

    rows: int = 0
    unsafe: int = 0
    report: Report | None = None


def export(
    engine: Engine, wanted: ExportRequest, *, on_rows: Callable[[int], object] = lambda _: None
) -> ExportResult:
    """Write the export. Memory does not grow with it. on_rows: told of every page, how many rows it had."""
    done = ExportResult()
    with (
        snapshot(engine) as connection,
        opened(wanted.output) as file,
        open_format(wanted.form, file, raw=wanted.raw) as write,
        closing(verdict_pages(connection, wanted.choice, limit=wanted.limit)) as pages,
    ):
        for page in pages:
            write(page)
            done.rows += len(page)
            done.unsafe += sum(row[_RATING] == "Unsafe" for row in page)
            on_rows(len(page))
        if wanted.report:
            done.report = make_report(
                connection, wanted.choice, group_by=wanted.group_by, warn_share=wanted.warn_share
            )
    return done


def first_rows(engine: Engine, choice: ExportFilter, limit: int) -> Iterator[dict[str, object]]:
    """For a table: so many verdicts as rows by column name."""
    names = [column.name for column in COLUMNS]
    with snapshot(engine) as connection, closing(verdict_pages(connection, choice, limit=limit)) as pages:
        for page in pages:
            yield from (dict(zip(names, row, strict=True)) for row in page)


def report_only(engine: Engine, wanted: ExportRequest) -> Report:
    """The report of a table, which has no file of its own."""
    with snapshot(engine) as connection:
        return make_report(connection, wanted.choice, group_by=wanted.group_by, warn_share=wanted.warn_share)

"""The formats of an export. Each writes pages of rows with the columns of `moderation.ledger.export`."""

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from enum import StrEnum
from typing import Any, BinaryIO

from pydantic_core import to_json

from moderation.ledger.export import COLUMNS, ColumnKind, Page
from moderation.safe_text import csv_cell

Write = Callable[[Page], None]
Cells = Callable[[Sequence[Any]], Sequence[Any]]  # of a column

_NAMES = [column.name for column in COLUMNS]
_JSON = next(n for n, c in enumerate(COLUMNS) if c.kind is ColumnKind.JSON)


class ExportFormat(StrEnum):
    """Where a person reads, and three files for programs."""

    TABLE = "table"
    JSONL = "jsonl"
    CSV = "csv"
    PARQUET = "parquet"


def open_format(form: ExportFormat, file: BinaryIO, *, raw: bool = False) -> AbstractContextManager[Write]:
    """What writes pages into the file in this form. Raises BadSetting where the form needs what is not installed.

    raw: in CSV, texts as they are, for programs alone.
    """
    if form is ExportFormat.PARQUET:
        from consumer.export.parquet import parquet  # pyarrow takes half a second, and may not be there

        return parquet(file)
    return _csv(file, raw=raw) if form is ExportFormat.CSV else _jsonl(file)


@contextmanager
def _jsonl(file: BinaryIO) -> Iterator[Write]:
    """A JSON object a line, times in ISO 8601."""

    def write(page: Page) -> None:
        for row in page:
            named = dict(zip(_NAMES, row, strict=True))
            if row[_JSON] is not None:
                named[_NAMES[_JSON]] = json.loads(row[_JSON])
            file.write(to_json(named, inf_nan_mode="strings") + b"\n")

    yield write


@contextmanager
def _csv(file: BinaryIO, *, raw: bool) -> Iterator[Write]:
    """RFC 4180, UTF-8, a header, an empty cell for NULL, and no text that a spreadsheet would run."""
    text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
    writer = csv.writer(text)
    writer.writerow(_NAMES)
    try:
        yield lambda page: writer.writerows(_cells(page, _CELLS if not raw else _CELLS | _RAW))
        text.flush()
    finally:
        text.detach()  # the file is not ours to close


def _cells(page: Page, cells: Mapping[ColumnKind, Cells]) -> Iterable[Sequence[Any]]:
    """Column by column, which takes half the time of cell by cell."""
    columns = zip(*page, strict=True)
    return zip(*(cells[c.kind](column) for c, column in zip(COLUMNS, columns, strict=True)), strict=True)


def _harmless(column: Sequence[str | None]) -> Sequence[str | None]:
    """Only texts: a negative number is one."""
    return [csv_cell(text) if text else text for text in column]


def _words(column: Sequence[bool | None]) -> Sequence[str | None]:
    return [None if flag is None else "true" if flag else "false" for flag in column]


def _moments(column: Sequence[datetime]) -> Sequence[str]:
    return [time.isoformat() for time in column]


def _as_they_are(column: Sequence[Any]) -> Sequence[Any]:
    return column


_CELLS: dict[ColumnKind, Cells] = {
    ColumnKind.TEXT: _harmless,
    ColumnKind.WORD: _harmless,
    ColumnKind.JSON: _harmless,
    ColumnKind.FLAG: _words,
    ColumnKind.TIME: _moments,
    ColumnKind.INT32: _as_they_are,
    ColumnKind.INT64: _as_they_are,
    ColumnKind.REAL: _as_they_are,
}
_RAW = dict.fromkeys((ColumnKind.TEXT, ColumnKind.WORD, ColumnKind.JSON), _as_they_are)

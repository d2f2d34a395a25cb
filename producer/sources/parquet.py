"""Parquet, a row group at a time. Its reader, pyarrow, comes with the extra `parquet`."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moderation.errors import BadSetting, BadSource, InvalidSubmission
from producer.sources.columns import Columns
from producer.sources.item import Cursor, Item, Reject, SourceStep, file_identity

_ROWS = 1024  # decoded at a time


@dataclass(frozen=True, slots=True)
class Parquet:
    name: str
    columns: Columns

    @property
    def identity(self) -> str:
        return file_identity(Path(self.name))

    def read(self, after: Cursor = None) -> Iterator[SourceStep]:
        behind = after if isinstance(after, int) else 0
        with opened(self.name) as file:
            names = file.schema_arrow.names
            self.columns.check(names, self.name)
            total = file.metadata.num_rows or 1
            for number, row in rows_behind(file, behind, self.columns.needed(names)):
                yield SourceStep(self._what(row), cursor=number, line=number, done=number / total)

    def _what(self, row: dict[str, Any]) -> Item | Reject:
        try:
            return self.columns.item(row, Path(self.name).parent)
        except InvalidSubmission as exc:
            return Reject(str(exc))


def opened(name: str) -> Any:
    """A pyarrow ParquetFile. Raises BadSource where it is none; BadSetting where pyarrow is not installed."""
    try:
        import pyarrow as pa
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise BadSetting("Parquet needs pyarrow: pip install 'vetline[parquet]'") from None
    try:
        return ParquetFile(name)
    except (OSError, pa.ArrowException) as exc:
        raise BadSource(f"{name}: {str(exc).splitlines()[0]}") from exc


def rows_behind(file: Any, behind: int, names: list[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows with their numbers, from 1; whole row groups in front are not read."""
    number = 0
    for group in range(file.num_row_groups):
        size = file.metadata.row_group(group).num_rows
        if number + size <= behind:
            number += size
            continue
        for batch in file.iter_batches(batch_size=_ROWS, row_groups=[group], columns=names):
            for row in batch.to_pylist():
                number += 1
                if number > behind:
                    yield number, row

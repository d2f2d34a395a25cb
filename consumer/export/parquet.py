"""Writes Parquet with real types: numbers as numbers, times in UTC, categories as dictionaries.

Needs pyarrow, the extra `parquet`.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING, BinaryIO

from moderation.errors import BadSetting
from moderation.ledger.export import COLUMNS, ColumnKind, Page

if TYPE_CHECKING:
    import pyarrow

    from consumer.export.formats import Write

# A reader holds a group of rows at a time, and so do we: some 60 MB as Arrow holds them.
_ROWS_IN_A_GROUP = 50_000
_NEVER_NULL = frozenset(
    {
        "id",
        "uri",
        "policy",
        "policy_revision",
        "rating",
        "category",
        "rationale",
        "needs_review",
        "recorded_at",
    }
)


def schema() -> "pyarrow.Schema":
    """The columns with their types, what each says, and Vetline's version in the metadata.

    Raises BadSetting where pyarrow is not installed.
    """
    try:
        import pyarrow as pa
    except ImportError as exc:
        raise BadSetting("Parquet needs pyarrow: pip install 'vetline[parquet]'") from exc
    types = {
        ColumnKind.TEXT: pa.string(),
        ColumnKind.WORD: pa.dictionary(pa.int32(), pa.string()),
        ColumnKind.INT32: pa.int32(),
        ColumnKind.INT64: pa.int64(),
        ColumnKind.REAL: pa.float64(),
        ColumnKind.FLAG: pa.bool_(),
        ColumnKind.TIME: pa.timestamp("us", tz="UTC"),
        ColumnKind.JSON: pa.string(),
    }
    metadata = {"vetline": version("vetline"), "columns": {column.name: column.says for column in COLUMNS}}
    return pa.schema(
        [
            pa.field(
                c.name, types[c.kind], nullable=c.name not in _NEVER_NULL, metadata={"description": c.says}
            )
            for c in COLUMNS
        ],
        metadata={"vetline": json.dumps(metadata)},
    )


@contextmanager
def parquet(file: BinaryIO) -> Iterator["Write"]:
    """Pages into row groups of some 50,000. The file is whole when this ends."""
    shape = schema()
    import pyarrow as pa
    from pyarrow import parquet as pq

    held: list[pa.RecordBatch] = []

    def write_group() -> None:
        # One dictionary for a group, or the file could not say in one place what its numbers mean.
        writer.write_table(pa.Table.from_batches(held, shape).unify_dictionaries())
        held.clear()

    def write(page: Page) -> None:
        held.append(_batch(page, shape))
        if sum(batch.num_rows for batch in held) >= _ROWS_IN_A_GROUP:
            write_group()

    with pq.ParquetWriter(file, shape, compression="zstd") as writer:
        yield write
        if held:
            write_group()


def _batch(page: Page, shape: "pyarrow.Schema") -> "pyarrow.RecordBatch":
    import pyarrow as pa

    columns = zip(*page, strict=True)
    arrays = [
        pa.array(column, field.type.value_type).dictionary_encode()
        if pa.types.is_dictionary(field.type)
        else pa.array(column, field.type)
        for column, field in zip(columns, shape, strict=True)
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=shape)

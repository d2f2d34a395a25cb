"""Where labelled rows are read from: CSV, TSV, JSON lines, LlavaGuard's JSON, Parquet, and UnsafeBench with its images."""

import csv
import gzip
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from consumer.evaluation.labels import LabelColumns, LabelledImage, digest_of, labelled, settled
from moderation.assessment import SCHEMES
from moderation.errors import BadSetting, BadSource

Row = Mapping[str, Any]

_PLACEHOLDER = "<image>"  # stands in LlavaGuard's published prompts for the image
_ROWS = 1024  # of Parquet, decoded at a time


@dataclass(frozen=True, slots=True)
class LabelledData:
    """Labelled rows and the digest that a gate names them by."""

    name: str
    rows: list[LabelledImage]
    sha256: str


def read_labelled(name: str, columns: LabelColumns, *, images: Path) -> LabelledData:
    """The rows of a file. images: where pictures that stand in the table are written, for workers to fetch.

    Raises BadSource where it cannot be read.
    """
    path = Path(name)
    if not path.is_file():
        raise BadSource(f"no such file: {name}")
    rows = settled(_labelled(path, columns, images))
    if not rows:
        raise BadSource(f"{name} has no rows")
    return LabelledData(name, rows, digest_of(rows, with_uri=True))


def _labelled(path: Path, columns: LabelColumns, images: Path) -> Iterator[LabelledImage]:
    named: dict[str, str | None] | None = None
    for row in _rows(path):
        if named is None:
            named = columns.named(list(row), path.name)
        value = row.get(named["uri"] or "")
        yield labelled(row, named, columns.groups, uri=_uri(value, path.parent, images))


def _rows(path: Path) -> Iterator[Row]:
    suffix = Path(path.name.removesuffix(".gz")).suffix.lower()
    readers = {
        ".csv": _csv,
        ".tsv": _csv,
        ".jsonl": _jsonl,
        ".ndjson": _jsonl,
        ".json": _llavaguard,
        ".parquet": _parquet,
    }
    if suffix not in readers:
        raise BadSource(f"{path}: labelled rows are .csv, .tsv, .jsonl, .json or .parquet")
    try:
        yield from readers[suffix](path)
    except (OSError, UnicodeDecodeError, csv.Error, json.JSONDecodeError) as exc:
        raise BadSource(f"{path}: {exc}") from exc


def _opened(path: Path) -> IO[str]:
    if path.name.endswith(".gz"):
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    return path.open(encoding="utf-8-sig", newline="")


def _csv(path: Path) -> Iterator[Row]:
    with _opened(path) as file:
        yield from csv.DictReader(file, delimiter="\t" if ".tsv" in path.name else ",", strict=True)


def _jsonl(path: Path) -> Iterator[Row]:
    with _opened(path) as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise BadSource(f"{path}:{number}: not a JSON object")
                yield row


def _llavaguard(path: Path) -> Iterator[Row]:
    """The build of LlavaGuard-DS: an array of rows, the rules in the first turn of a conversation."""
    with _opened(path) as file:
        rows = json.load(file)
    if not isinstance(rows, list):
        raise BadSource(f"{path} is no JSON array")
    for row in rows:
        try:
            said = row["conversations"][0]["value"] if "conversations" in row else row.get("policy")
        except (KeyError, IndexError, TypeError, AttributeError):
            raise BadSource(f"{path}: a row is none of LlavaGuard-DS") from None
        yield row | {"policy": str(said or "").replace(_PLACEHOLDER, "").strip()}


def _parquet(path: Path) -> Iterator[Row]:
    try:
        import pyarrow as pa
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise BadSetting("Parquet needs pyarrow: pip install 'vetline[parquet]'") from None
    try:
        with ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=_ROWS):
                yield from batch.to_pylist()
    except pa.ArrowException as exc:
        raise BadSource(f"{path}: {str(exc).splitlines()[0]}") from exc


def _uri(value: Any, base: Path, images: Path) -> str:
    """A URI as it is, a path as file:, bytes as a file of their digest."""
    if isinstance(value, Mapping):  # {bytes, path}, as Hugging Face keeps images
        value = value.get("bytes") or value.get("path")
    if isinstance(value, bytes):
        return _written(value, images)
    text = "" if value is None else str(value).strip()
    if not text or text.partition(":")[0].lower() in SCHEMES:
        return text
    return (base / text).resolve().as_uri()


def _written(data: bytes, images: Path) -> str:
    images.mkdir(parents=True, exist_ok=True)
    path = images / hashlib.sha256(data).hexdigest()
    if not path.exists():
        part = path.with_suffix(".part")
        part.write_bytes(data)
        part.rename(path)
    return path.resolve().as_uri()

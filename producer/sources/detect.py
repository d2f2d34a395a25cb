"""Which kind of source a word on the command line is."""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from moderation.errors import BadSource
from producer.sources.columns import Columns
from producer.sources.folder import Folder
from producer.sources.img2dataset import Img2Dataset, is_img2dataset
from producer.sources.item import Source, names_a_uri
from producer.sources.jsonl import JsonLines
from producer.sources.lines import LineList
from producer.sources.llavaguard import open_llavaguard
from producer.sources.parquet import Parquet
from producer.sources.s3_prefix import S3Prefix, check_boto3
from producer.sources.single import Single
from producer.sources.table import Table
from producer.sources.text import STDIN


class FileFormat(StrEnum):
    """What a file holds, where its name does not tell."""

    AUTO = "auto"
    IMAGE = "image"
    LINES = "lines"
    JSONL = "jsonl"
    CSV = "csv"
    PARQUET = "parquet"
    LLAVAGUARD = "llavaguard"
    IMG2DATASET = "img2dataset"


_BY_SUFFIX = {
    ".txt": FileFormat.LINES,
    ".jsonl": FileFormat.JSONL,
    ".ndjson": FileFormat.JSONL,
    ".csv": FileFormat.CSV,
    ".tsv": FileFormat.CSV,
    ".parquet": FileFormat.PARQUET,
}


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """How sources are to be read. patterns: of names in folders and below prefixes."""

    form: FileFormat = FileFormat.AUTO
    columns: Columns = field(default_factory=Columns)
    patterns: tuple[str, ...] = ()


def open_source(name: str, reading: SourceOptions) -> Source:
    """The source that the word means. Raises BadSource where there is none; nothing is read yet."""
    if name == STDIN:
        return _list(name, FileFormat.LINES if reading.form is FileFormat.AUTO else reading.form, reading)
    if _is_prefix(name):
        if not name.partition("://")[2].strip("/"):
            raise BadSource(f"{name} names no bucket: s3://bucket/prefix/")
        check_boto3()
        return S3Prefix(name, reading.patterns)
    if names_a_uri(name):
        return Single(name)
    path = Path(name)
    if path.is_dir():
        return _folder(name, path, reading)
    if not path.is_file():
        raise BadSource(f"no such file or folder: {name}")
    form = _form_of(name) if reading.form is FileFormat.AUTO else reading.form
    return _list(name, form, reading)


def _is_prefix(name: str) -> bool:
    """`s3://bucket`, or a key that ends in a slash: everything below."""
    scheme, _, rest = name.partition("://")
    return scheme.lower() == "s3" and ("/" not in rest or rest.endswith("/"))


def _folder(name: str, path: Path, reading: SourceOptions) -> Source:
    if reading.form is FileFormat.IMG2DATASET or (reading.form is FileFormat.AUTO and is_img2dataset(path)):
        return Img2Dataset(name, by_url=reading.columns.uri == "url")
    return Folder(name, reading.patterns)


def _form_of(name: str) -> FileFormat:
    return _BY_SUFFIX.get(Path(name.removesuffix(".gz")).suffix.lower(), FileFormat.IMAGE)


def _list(name: str, form: FileFormat, reading: SourceOptions) -> Source:
    kinds: dict[FileFormat, Callable[[], Source]] = {
        FileFormat.IMAGE: lambda: Single(name),
        FileFormat.LINES: lambda: LineList(name, reading.patterns),
        FileFormat.JSONL: lambda: JsonLines(name, reading.columns),
        FileFormat.CSV: lambda: Table(name, reading.columns),
        FileFormat.PARQUET: lambda: Parquet(name, reading.columns),
        FileFormat.LLAVAGUARD: lambda: open_llavaguard(name),
    }
    if form not in kinds:
        raise BadSource(f"{name} is no folder, as {form} is")
    return kinds[form]()

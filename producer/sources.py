"""What `vetline enqueue` takes: a file, a folder, a URL, an s3 object, or `-` for lines on standard input.

A source yields items: the URI, and a key that stays the same while the image does, so that enqueuing the same
source again adds only what is new.
"""

import hashlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from moderation.assessment import SCHEMES
from moderation.errors import BadSource

# By name only: what a file really is, the worker finds out from its bytes.
IMAGE_SUFFIXES = frozenset(
    [
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".png",
        ".webp",
        ".gif",
        ".bmp",
        ".tif",
        ".tiff",
        ".avif",
        ".heic",
        ".heif",
    ]
)


@dataclass(frozen=True, slots=True)
class Item:
    """One image of a source. line: where a list named it, counted from 1."""

    uri: str
    key: str
    line: int | None = None


def read_source(source: str, *, stdin: TextIO | None = None) -> Iterator[Item]:
    """The items of one source. Raises BadSource where there is nothing to read."""
    if source == "-":
        yield from _lines(stdin or sys.stdin)
    elif source.partition(":")[0].lower() in SCHEMES:
        yield _of_uri(source)
    else:
        yield from _of_path(Path(source))


def _lines(stream: TextIO) -> Iterator[Item]:
    for number, line in enumerate(stream, start=1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        if text.partition(":")[0].lower() in SCHEMES:
            yield Item(text, _of_uri(text).key, number)
        else:
            yield from (Item(item.uri, item.key, number) for item in _of_path(Path(text)))


def _of_uri(uri: str) -> Item:
    # A digest: a signed URL is a secret, and keys are shown.
    return Item(uri, "uri:" + hashlib.sha256(uri.encode()).hexdigest())


def _of_path(path: Path) -> Iterator[Item]:
    if path.is_dir():
        found = False
        for file in sorted(path.rglob("*")):
            if file.suffix.lower() in IMAGE_SUFFIXES and file.is_file():
                found = True
                yield _of_file(file)
        if not found:
            raise BadSource(f"no images in folder {path}")
    elif path.is_file():
        yield _of_file(path)
    else:
        raise BadSource(f"no such file or folder: {path}")


def _of_file(path: Path) -> Item:
    """A file is known by its place, size and time of change: an edited image is a new one."""
    absolute = path.resolve()
    stat = absolute.stat()
    mark = f"{absolute}\0{stat.st_size}\0{stat.st_mtime_ns}"
    return Item(absolute.as_uri(), "file:" + hashlib.sha256(mark.encode()).hexdigest())

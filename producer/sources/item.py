"""What a source yields, and what every source is.

A source is read in an order that stays the same, so that reading can go on behind a place that was reached before;
and each image has a key that stays the same while the image does, so that enqueuing it again adds only what is new.
"""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from moderation.assessment import SCHEMES

Cursor = str | int | None  # everything up to here was yielded; None is the beginning

# By name only: what a file really is, the worker finds out from its bytes.
IMAGE_SUFFIXES = frozenset(
    [".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".heic", ".heif"]
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Item:
    """One image.

    key: stays the same while the image does.
    key_is_given: the source names it, so it is the image's whole key, in whatever batch.
    priority: where the source names one; not checked yet.
    """

    uri: str
    key: str
    key_is_given: bool = False
    metadata: dict[str, Any] | None = None
    priority: str | None = None


@dataclass(frozen=True, slots=True)
class Reject:
    """What cannot be submitted, and why. image: its URI or place, as far as it is known; may hold secrets."""

    reason: str
    image: str | None = None


@dataclass(frozen=True, slots=True)
class SourceStep:
    """One item or refusal, and how far the source then is.

    line: of the list, or row of the table, counted from 1; None where there are none.
    cursor: read(after=cursor) goes on behind it; None where this source cannot.
    done: the share of the source that was read, from 0 to 1; None where it is not known.
    """

    what: Item | Reject
    cursor: Cursor = None
    line: int | None = None
    done: float | None = None


class Source(Protocol):
    """name: as it was typed. identity: as long as it is the same, so is what a cursor means."""

    @property
    def name(self) -> str: ...
    @property
    def identity(self) -> str: ...
    def read(self, after: Cursor = None) -> Iterator[SourceStep]:
        """What is behind the cursor. Raises BadSource or SourceUnavailable where it cannot be read at all."""
        ...


def item_of_uri(uri: str, **fields: Any) -> Item:
    # A digest: a signed URL is a secret, and keys are shown.
    return Item(uri, "uri:" + _digest(uri), **fields)


def item_of_file(path: Path, **fields: Any) -> Item:
    """A file is known by its place, size and time of change: an edited image is a new one. Raises OSError."""
    absolute = path.resolve()
    stat = absolute.stat()
    return Item(
        absolute.as_uri(), "file:" + _digest(f"{absolute}\0{stat.st_size}\0{stat.st_mtime_ns}"), **fields
    )


def names_a_uri(text: str) -> bool:
    """Whether it is meant as a URI, supported or not, rather than as a path."""
    return text.partition(":")[0].lower() in SCHEMES or "://" in text


def file_identity(path: Path) -> str:
    """What changes when a file is written again. Raises OSError."""
    stat = path.stat()
    return f"{path.resolve()}\0{stat.st_size}\0{stat.st_mtime_ns}"


def _digest(text: str) -> str:
    return hashlib.sha256(os.fsencode(text)).hexdigest()

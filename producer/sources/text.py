"""Lists as text: opened plain or gzipped, or from standard input; read line by line, each line bounded."""

import gzip
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from moderation.errors import BadSource
from producer.sources.item import file_identity

STDIN = "-"
MAX_LINE = 1_048_576  # bytes; a URI has 8,192 and metadata 16,384


@dataclass(frozen=True, slots=True)
class TextLine:
    """text: without its end; None where it is too long or no UTF-8, for the reason in `problem`."""

    number: int
    text: str | None
    done: float | None
    problem: str = ""


def identity_of(name: str) -> str:
    return name if name == STDIN else file_identity(Path(name))


def base_of(name: str) -> Path:
    """What relative paths in the list are relative to."""
    return Path() if name == STDIN else Path(name).parent


def lines_of(name: str) -> Iterator[TextLine]:
    """All lines, counted from 1. Raises BadSource where the list cannot be read."""
    with _opened(name) as (stream, done):
        number = 0
        while raw := stream.readline(MAX_LINE):
            number += 1
            if len(raw) == MAX_LINE and not raw.endswith(b"\n"):
                while (rest := stream.readline(MAX_LINE)) and not rest.endswith(b"\n"):
                    pass
                yield TextLine(number, None, done(), f"the line is longer than {MAX_LINE} bytes")
                continue
            try:
                text = raw.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError:
                yield TextLine(number, None, done(), "the line is not UTF-8")
            else:
                yield TextLine(number, text.rstrip("\r\n"), done())


@contextmanager
def _opened(name: str) -> Iterator[tuple[BinaryIO, Callable[[], float | None]]]:
    """The list's bytes, and how much of it was read."""
    if name == STDIN:
        yield sys.stdin.buffer, lambda: None
        return
    try:
        with Path(name).open("rb") as file:
            size = Path(name).stat().st_size or 1
            stream = gzip.GzipFile(fileobj=file) if name.endswith(".gz") else file
            yield cast("BinaryIO", stream), lambda: min(1.0, file.tell() / size)
    except (OSError, EOFError) as exc:  # gzip's own errors among them
        raise BadSource(f"{name}: {getattr(exc, 'strerror', None) or exc}") from exc

"""Writes an export's file whole or not at all, or to standard output."""

import io
import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

from moderation.errors import BadSetting, VetlineError
from moderation.safe_text import json_for_terminal


@contextmanager
def written_aside(path: Path) -> Iterator[BinaryIO]:
    """Written beside its place and renamed when it is whole and on disk; removed where anything goes wrong.

    Whoever reads `path` meanwhile sees what was there before. Raises BadSetting where it cannot be written.
    """
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        # Not a temporary file: those are closed to all but their owner, and this is to be read.
        file = aside.open("xb")
    except OSError as exc:
        raise BadSetting(f"cannot write {path}: {exc.strerror}") from exc
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except BrokenPipeError:
        raise
    except OSError as exc:  # a full disk, a folder of that name
        raise VetlineError(f"cannot write {path}: {exc.strerror or exc}") from exc
    finally:
        aside.unlink(missing_ok=True)


class _Terminal(io.RawIOBase):
    """Standard output where a person looks at it. Each write is of whole characters."""

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        text = bytes(data).decode("utf-8", "backslashreplace")
        sys.stdout.write(json_for_terminal(text.replace("\r\n", "\n")))
        return len(data)


@contextmanager
def opened(path: Path | None) -> Iterator[BinaryIO]:
    """The file, or standard output where there is none; a terminal is shown nothing that commands it."""
    if path is None:
        yield cast("BinaryIO", _Terminal()) if sys.stdout.isatty() else sys.stdout.buffer
        sys.stdout.flush()
    else:
        with written_aside(path) as file:
            yield file

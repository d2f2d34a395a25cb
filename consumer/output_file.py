"""Where an export goes: a file that appears whole or not at all, or standard output."""

import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from moderation.errors import BadSetting, VetlineError


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


@contextmanager
def opened(path: Path | None) -> Iterator[BinaryIO]:
    """The file, or standard output where there is none."""
    if path is None:
        yield sys.stdout.buffer
        sys.stdout.flush()
    else:
        with written_aside(path) as file:
            yield file

"""file: URIs, below given roots only. Off where no root is given."""

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import unquote_to_bytes

from intake.picture import Fetched
from moderation.errors import Forbidden, HostUnavailable, InvalidUri, NotFound, TooLarge

_DIRECTORY = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # a pipe must not hold us up


class FileSource:
    """Reads regular files. Each component is opened from the one before it, and no symbolic link is followed:
    nobody can swap a directory for a link between a check and the opening."""

    def __init__(self, roots: Sequence[Path], max_bytes: int) -> None:
        self._roots = [(_parts(os.fsencode(os.path.abspath(root))), os.path.realpath(root)) for root in roots]
        self._roots += [(_parts(os.fsencode(real)), real) for _, real in self._roots]
        self._max_bytes = max_bytes

    def fetch(self, uri: str) -> Fetched:
        """Raises what `Fetcher.fetch` names."""
        root, parts = self._below_a_root(_path(uri))
        try:
            with _opened(root, parts) as file:
                return self._read(file)
        except (FileNotFoundError, NotADirectoryError):
            raise NotFound("no such file") from None
        except PermissionError:
            raise Forbidden("the file may not be read") from None
        except OSError as error:
            raise HostUnavailable(f"the file could not be read: {os.strerror(error.errno or 0)}") from None

    def _below_a_root(self, parts: list[bytes]) -> tuple[str, list[bytes]]:
        for prefix, real in self._roots:
            if parts[: len(prefix)] == prefix and len(parts) > len(prefix):
                return real, parts[len(prefix) :]
        raise Forbidden("outside the roots that files are read from (VETLINE_FETCH_FILE_ROOTS)")

    def _read(self, file: int) -> Fetched:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            raise Forbidden("not a regular file")
        if status.st_size > self._max_bytes:
            raise TooLarge(f"larger than {self._max_bytes} bytes")
        with os.fdopen(os.dup(file), "rb") as reader:
            data = reader.read(self._max_bytes + 1)
        if len(data) > self._max_bytes:
            raise TooLarge(f"larger than {self._max_bytes} bytes")
        return Fetched(data=data)


def _path(uri: str) -> list[bytes]:
    """The components of `file:///absolute/path`, percent-decoded once."""
    if not uri.lower().startswith("file:///"):
        raise InvalidUri("a file URI is file:/// and an absolute path")
    path = uri[len("file://") :]
    if "?" in path or "#" in path:
        raise InvalidUri("a file URI has no query or fragment (write them as %3F and %23)")
    decoded = unquote_to_bytes(path)
    parts = _parts(decoded)
    if b"\0" in decoded or b".." in parts:
        raise InvalidUri("the path holds .. or a null character")
    return parts


def _parts(path: bytes) -> list[bytes]:
    return [part for part in path.split(b"/") if part not in (b"", b".")]


@contextmanager
def _opened(root: str, parts: list[bytes]) -> Iterator[int]:
    at = os.open(root, _DIRECTORY & ~os.O_NOFOLLOW)
    try:
        for part in parts[:-1]:
            at = _step(at, part, _DIRECTORY)
        at = _step(at, parts[-1], _FILE)
        yield at
    finally:
        os.close(at)


def _step(directory: int, name: bytes, flags: int) -> int:
    """Open name in directory, and close directory; where that fails, closing it is left to the caller."""
    try:
        opened = os.open(name, flags, dir_fd=directory)
    except OSError:
        with suppress(OSError):
            if stat.S_ISLNK(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
                raise Forbidden("the path holds a symbolic link") from None
        raise
    os.close(directory)
    return opened

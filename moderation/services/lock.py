"""A lock on a file that the kernel lets go when its holder dies, however it dies."""

import fcntl
import os
from pathlib import Path
from typing import Self


class FileLock:
    """One handle on the file; two handles exclude each other even inside one process."""

    def __init__(self, path: Path) -> None:
        self._handle: int | None = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)

    def share(self) -> None:
        """Wait until nobody holds it alone, then hold it beside others."""
        self._lock(fcntl.LOCK_SH)

    def take(self) -> None:
        """Wait until nobody else holds it, then hold it alone."""
        self._lock(fcntl.LOCK_EX)

    def try_share(self) -> bool:
        return self._try(fcntl.LOCK_SH)

    def try_take(self) -> bool:
        return self._try(fcntl.LOCK_EX)

    def release(self) -> None:
        self._lock(fcntl.LOCK_UN)

    def close(self) -> None:
        """Release it and be done."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _try(self, mode: int) -> bool:
        try:
            self._lock(mode | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _lock(self, mode: int) -> None:
        if self._handle is None:
            raise ValueError("the lock is closed")
        fcntl.flock(self._handle, mode)


def is_taken(path: Path) -> bool:
    """Whether somebody holds the lock alone now."""
    if not path.exists():
        return False
    with FileLock(path) as lock:
        return not lock.try_share()

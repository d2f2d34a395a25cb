"""A slot for one suspect at a time in this worker."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class SuspectSlot:
    """Whoever finds it free may bring in a suspect. Each thread leaves what it entered, once."""

    def __init__(self) -> None:
        self._free = threading.Lock()
        self._mine = threading.local()

    @contextmanager
    def entered(self) -> Iterator[bool]:
        """Whether this thread has the suspect slot, until it leaves or the block ends."""
        self._mine.held = self._free.acquire(blocking=False)
        try:
            yield self._mine.held
        finally:
            self.leave()

    def enter(self, timeout_s: float) -> bool:
        """Inside the block of a thread that did not find it free: wait for it."""
        self._mine.held = self._free.acquire(timeout=timeout_s)
        return bool(self._mine.held)

    def leave(self) -> None:
        """Free it for others, if this thread has it."""
        if self._mine.held:
            self._mine.held = False
            self._free.release()

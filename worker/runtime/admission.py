"""Who may ask the runtime: many at once, or a suspect alone."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from moderation.errors import RuntimeUnavailable

# The next suspect of a row waits at the suspect slot and comes within milliseconds; letting a hundred others in between
# two of them would cost a drain for each.
_LINGER_S = 0.5


class Admission:
    """Visitors come and go together. Whoever would be alone waits for them to leave, and no other enters meanwhile."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._visitors = 0
        self._alone_wanted = 0
        self._is_alone = False
        self._open_at = 0.0  # monotonic: visitors wait until then

    @property
    def visitors(self) -> int:
        return self._visitors

    @contextmanager
    def visit(self, timeout_s: float) -> Iterator[None]:
        """Raises RuntimeUnavailable where others are tried alone for longer than timeout_s."""
        with self._changed:
            if not self._wait(self._is_open, timeout_s):
                raise RuntimeUnavailable("suspects of having killed the runtime are tried alone")
            self._visitors += 1
        try:
            yield
        finally:
            with self._changed:
                self._visitors -= 1
                self._changed.notify_all()

    @contextmanager
    def alone(self, timeout_s: float) -> Iterator[None]:
        """Raises RuntimeUnavailable where visitors stay for longer than timeout_s."""
        with self._changed:
            self._alone_wanted += 1
            try:
                if not self._wait(lambda: self._visitors == 0 and not self._is_alone, timeout_s):
                    raise RuntimeUnavailable("the runtime did not come free for a suspect")
                self._is_alone = True
            finally:
                self._alone_wanted -= 1
        try:
            yield
        finally:
            with self._changed:
                self._is_alone = False
                self._open_at = time.monotonic() + _LINGER_S
                self._changed.notify_all()

    def wait_until_empty(self, timeout_s: float) -> bool:
        """Whether nobody was left within the time. Keeping others out meanwhile is the caller's."""
        with self._changed:
            return self._wait(lambda: self._visitors == 0 and not self._is_alone, timeout_s)

    def _is_open(self) -> bool:
        return not self._is_alone and self._alone_wanted == 0 and time.monotonic() >= self._open_at

    def _wait(self, ready: Callable[[], bool], timeout_s: float) -> bool:
        deadline = time.monotonic() + timeout_s
        while not ready():
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                return False
            self._changed.wait(min(left_s, _LINGER_S))
        return True

"""Ctrl-C and SIGTERM for commands that start processes: noticed at once, heeded where nothing is half done.

Python raises KeyboardInterrupt between any two instructions, also between the start of a process and the note of
its number, and a process that nobody knows of is never stopped.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from moderation.exit_codes import INTERRUPTED


class StopRequested(BaseException):
    """Somebody asked to stop. Not an Exception: no handler of errors is to take it for one."""


class GracefulStop:
    """Holds both signals for the length of a `with`.

    code: what to exit with: 130 after Ctrl-C; 0 after SIGTERM, by which a supervisor asks for what then happens.
    hurry: whether it was asked for more than once.
    """

    def __init__(self) -> None:
        self._signals: list[int] = []
        self._at_once = False
        self._before: dict[int, object] = {}

    @property
    def code(self) -> int:
        return 0 if self._signals[:1] == [signal.SIGTERM] else INTERRUPTED

    @property
    def hurry(self) -> bool:
        return len(self._signals) > 1

    def check(self) -> None:
        """Raises Stopped if it was asked for."""
        if self._signals:
            raise StopRequested

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Raise Stopped from wherever the block is; for waits that leave nothing behind when cut short."""
        self._at_once = True
        try:
            self.check()
            yield
        finally:
            self._at_once = False

    def __enter__(self) -> "GracefulStop":
        self._before = {
            number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)
        }
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what signal.signal gave, it takes

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self._signals.append(number)
        if self._at_once:
            self._at_once = False  # once; what unwinds is not to be cut short in turn
            raise StopRequested

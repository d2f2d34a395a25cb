"""The lines of several processes on one terminal, each behind its process's name."""

import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, TextIO

_COLOURS = (
    "36",
    "33",
    "35",
    "34",
    "32",
)  # cyan, yellow, magenta, blue, green: readable on black and on white
_LOOK_S = 0.1


class LogMultiplexer:
    """Whole lines only, in the order in which they come. Safe to call from any thread."""

    def __init__(self, stream: TextIO, names: Sequence[str], *, heads: bool = True) -> None:
        """names: who may speak; colours are used where `stream` is a terminal.

        heads: False leaves the names out, for lines that a program reads.
        """
        self._heads = heads
        self._stream = stream
        self._width = max(map(len, names))
        self._colours = dict(zip(names, _COLOURS, strict=False)) if stream.isatty() else {}
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._threads: list[threading.Thread] = []
        self.last: dict[str, str] = {}  # the last line of each

    def say(self, name: str, line: str) -> None:
        """One line; blank ones are left out."""
        if not line.strip():
            return
        head = self._head(name) if self._heads else ""
        with self._lock:
            self.last[name] = line.strip()
            self._stream.write(f"{head}{line}\n")
            self._stream.flush()

    def _head(self, name: str) -> str:
        head = f"{name:<{self._width}} |"
        if colour := self._colours.get(name):
            head = f"\033[{colour}m{head}\033[0m"
        return f"{head} "

    def follow(self, name: str, output: IO[bytes]) -> None:
        """Say every line of a process until it closes its output."""
        self._start(self._read, name, output)

    def tail(self, name: str, log: Path) -> None:
        """Say every line that is written to a log from now on."""
        self._start(self._read_on, name, log, log.stat().st_size if log.exists() else 0)

    def stop(self) -> None:
        """Say what is left in the logs, and what processes that have ended wrote last."""
        self._stopped.set()
        for thread in self._threads:
            thread.join(timeout=5)

    def _start(self, target: object, *args: object) -> None:
        assert callable(target)
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _read(self, name: str, output: IO[bytes]) -> None:
        with output:
            for line in output:
                self.say(name, line.decode(errors="replace").rstrip())

    def _read_on(self, name: str, log: Path, position: int) -> None:
        rest = b""
        while True:
            last_look = self._stopped.is_set()
            if log.exists():
                with log.open("rb") as file:
                    file.seek(position)
                    fresh = file.read()
                position += len(fresh)
                *lines, rest = (rest + fresh).split(b"\n")
                for line in lines:
                    self.say(name, line.decode(errors="replace").rstrip())
            if last_look:
                return
            time.sleep(_LOOK_S)

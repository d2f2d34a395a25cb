"""The history of a run: one JSON line for each event, in the order in which they happened."""

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class History:
    """Appends events. Safe to share between threads; a line is on its way to the disk before `note` returns."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._file = path.open("a", buffering=1)

    def note(self, event: str, **facts: Any) -> None:
        line = json.dumps({"at": time.time(), "event": event} | facts)
        with self._lock:
            self._file.write(line + "\n")

    def close(self) -> None:
        self._file.close()


def read_history(path: Path) -> Iterator[dict[str, Any]]:
    with path.open() as lines:
        for line in lines:
            yield json.loads(line)

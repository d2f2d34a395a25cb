"""Times the steps of one assessment."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Clock:
    """Milliseconds by step; a step that failed is timed too."""

    def __init__(self) -> None:
        self.timings_ms: dict[str, float] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            elapsed = (time.perf_counter() - start) * 1000
            self.timings_ms[name] = round(self.timings_ms.get(name, 0.0) + elapsed, 3)

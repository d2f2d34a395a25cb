"""Times the steps of one assessment, for its own record and for the metrics."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from moderation import metrics, tracing
from worker.events import task_progress


class StepTimer:
    """Milliseconds by step; a step that failed is timed too."""

    def __init__(self) -> None:
        self.timings_ms: dict[str, float] = {}

    @contextmanager
    def step(self, name: str, *, since: float | None = None) -> Iterator[None]:
        """since: when it began, by time.perf_counter, where that was before the block."""
        task_progress.step(name)
        start = time.perf_counter() if since is None else since
        try:
            with tracing.span(name):
                yield
        finally:
            elapsed_s = time.perf_counter() - start
            self.timings_ms[name] = round(self.timings_ms.get(name, 0.0) + elapsed_s * 1000, 3)
            metrics.STEP_SECONDS.labels(name).observe(elapsed_s)

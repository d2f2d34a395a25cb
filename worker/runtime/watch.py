"""The watch on a server that serves: its process, what it says, whether it answers images, its memory, its age."""

import random
import time

import structlog

from moderation.errors import RuntimeUnavailable
from worker.runtime.diagnosis import telling_line
from worker.runtime.gpu_memory import GpuMemory
from worker.runtime.serving import Serving
from worker.runtime.settings import RuntimeSettings
from worker.runtime.start import ended_how

log = structlog.get_logger()


class ServerWatch:
    """Looks when it is told to. One for each server, used by one thread."""

    def __init__(self, serving: Serving, settings: RuntimeSettings) -> None:
        self._serving = serving
        self._settings = settings
        self._gpu = GpuMemory()
        self._memory_at = time.monotonic()
        self._asked_at = time.monotonic()
        self._alarms = serving.process.alarms
        self._mib_at_start = serving.process.memory_mib()
        self._gpu_mib_at_start = self._gpu.of(serving.process.pids())
        self._lasts_s = settings.recycle_s * random.uniform(0.9, 1.1)  # noqa: S311 - spreads a fleet, guards nothing

    def look(self) -> str | None:
        """Why it should be replaced once it is drained, if it should. Raises RuntimeUnavailable where it has failed."""
        serving = self._serving
        self._see_it_live()
        self._listen()
        if time.monotonic() - max(serving.answered_at, self._asked_at) >= self._settings.canary_every_s:
            self._ask()  # no image was answered for a while
        self._see_it_live()  # that it has ended says more than that it did not answer
        if serving.fault is not None:
            raise RuntimeUnavailable(f"SGLang is not well: {serving.fault}")
        return self._age() or self._memory()

    def _see_it_live(self) -> None:
        process = self._serving.process
        if process.exit_code is not None:
            line = telling_line(process.last_lines())
            raise RuntimeUnavailable(f"SGLang ended ({ended_how(process)}): {line}")

    def _listen(self) -> None:
        """A pool of image workers broke: for good, or a canary tells whether this release mended it."""
        serving = self._serving
        if serving.process.alarms == self._alarms:
            return
        self._alarms = serving.process.alarms
        if serving.traits.pool_heals:
            self._ask()
        else:
            serving.fault = serving.fault or "its pool of image workers is broken"

    def _ask(self) -> None:
        serving, now = self._serving, time.monotonic()
        self._asked_at = now
        problem = serving.canary.problem()
        if problem is not None and serving.answered_at < now:  # else it is slow and well
            serving.fault = problem

    def _age(self) -> str | None:
        serving = self._serving
        if serving.images >= self._settings.recycle_images:
            return f"it has judged {serving.images} images"
        if (age_s := time.monotonic() - serving.ready_at) >= self._lasts_s:
            return f"it has run for {age_s:.0f} s"
        return None

    def _memory(self) -> str | None:
        now = time.monotonic()
        if now - self._memory_at < self._settings.memory_every_s:
            return None
        self._memory_at = now
        process = self._serving.process
        grown = process.memory_mib() - self._mib_at_start
        if grown > self._settings.growth_mib:
            return f"its memory has grown by {grown} MiB"
        held = self._gpu.of(process.pids())
        self._gpu_mib_at_start = held if self._gpu_mib_at_start is None else self._gpu_mib_at_start
        if held is not None and self._gpu_mib_at_start is not None:
            gpu_grown = held - self._gpu_mib_at_start
            if gpu_grown > self._settings.gpu_growth_mib:
                return f"its GPU memory has grown by {gpu_grown} MiB"
        return None

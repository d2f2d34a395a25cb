"""Processor time of whole process trees, by what they are."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path


def tree_s(pid: int) -> float:
    """Seconds used so far by a process, those below it, and those of them that have ended. 0 for none."""
    import psutil  # here and below: the GPU bench's other parts run without it

    total = 0.0
    with contextlib.suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        for process in (root, *root.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                total += times.user + times.system
                if process.pid == pid:
                    total += times.children_user + times.children_system
    return total


def own_s(pid: int) -> float:
    """Seconds used so far by one process alone."""
    import psutil

    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def places() -> Iterator[tuple[int, Path]]:
    """Every process that we may look at and the folder it works in, parents before their children."""
    import psutil

    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            yield process.pid, Path(process.cwd())


class Meter:
    """What each of several parties used between two moments."""

    def __init__(self, parties: Mapping[str, Callable[[], float]]) -> None:
        self._parties = parties
        self._before = self._read()

    def ms_each(self, images: int) -> dict[str, float]:
        """Milliseconds of one core for each image since this meter was made."""
        return {
            name: round(1000 * (now - self._before[name]) / max(1, images), 3)
            for name, now in self._read().items()
        }

    def _read(self) -> dict[str, float]:
        return {name: read() for name, read in self._parties.items()}

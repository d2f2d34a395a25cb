"""Carries an image's tiles from SGLang's HTTP process to its scheduler without copying them through a socket.

The tiles lie in anonymous shared memory (memfd): no name to leak, no limit of /dev/shm, gone when both processes
are. What is pickled is a descriptor of it, some 2.5 kB instead of 0.9 to 16 MB.
"""

import mmap
import os
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]

HEADER = 64  # bytes before the pixels: [0] is 1 once the reader has mapped the memory, [8:40] is the digest
DIGEST = slice(8, 40)
UNCLAIMED_S = 600.0  # the scheduler maps within milliseconds; a request dropped before that is never mapped


class SharedTiles:
    """The tiles of one image as uint8, and what turns them into the model's numbers.

    pixels: (tiles, side, side, 3) uint8, RGB: the whole image first, then its grid row by row.
    digest: 32 bytes that name the image, from its encoded bytes.
    table: (3, 256) float16, the model's input for each channel and value.
    """

    def __init__(
        self, pixels: Pixels, digest: bytes, table: NDArray[np.float16], *, memory: "_Memory | None" = None
    ) -> None:
        self.pixels = pixels
        self.digest = digest
        self.table = table
        self._memory = memory

    def __len__(self) -> int:
        return len(self.pixels)

    def normalised(self) -> NDArray[np.float16]:
        """(tiles, 3, side, side) float16: bit for bit what the stock processor sends."""
        out = np.empty((len(self.pixels), 3, *self.pixels.shape[1:3]), dtype=np.float16)
        for channel in range(3):
            np.take(self.table[channel], self.pixels[..., channel], out=out[:, channel])
        return out

    def __reduce__(self) -> tuple[Callable[..., Self], tuple[Any, ...]]:
        memory = self._memory
        if memory is None or memory.pid != os.getpid():
            return (type(self), (np.array(self.pixels), self.digest, self.table))
        described = (memory.pid, memory.fd, memory.size, self.pixels.shape, self.digest, self.table)
        return (type(self).mapped, described)

    @classmethod
    def mapped(
        cls, pid: int, fd: int, size: int, shape: tuple[int, ...], digest: bytes, table: NDArray[np.float16]
    ) -> Self:
        """The reader's side: maps the writer's memory and tells it so.

        Raises OSError if the memory is gone, or is by now another image's.
        """
        own = os.open(f"/proc/{pid}/fd/{fd}", os.O_RDWR)
        try:
            view = mmap.mmap(own, size)
        finally:
            os.close(own)
        if view[DIGEST] != digest:
            raise OSError(f"descriptor {fd} of process {pid} holds another image")
        pixels = np.frombuffer(view, np.uint8, offset=HEADER).reshape(shape)
        view[0] = 1
        return cls(pixels, digest, table)


@dataclass(frozen=True, slots=True)
class _Memory:
    pid: int
    fd: int
    size: int
    view: mmap.mmap
    made_at: float

    def claimed(self, now: float) -> bool:
        return self.view[0] == 1 or now - self.made_at > UNCLAIMED_S


class TileOutbox:
    """Makes SharedTiles and keeps their memory open until the scheduler has mapped it. Thread-safe."""

    def __init__(self, *, shared: bool = True, clock: Callable[[], float] = time.monotonic) -> None:
        self._shared = shared and hasattr(os, "memfd_create")
        self._clock = clock
        self._lock = threading.Lock()
        self._open: deque[_Memory] = deque()

    def put(
        self,
        shape: tuple[int, ...],
        digest: bytes,
        table: NDArray[np.float16],
        *,
        fill: Callable[[Pixels], None],
    ) -> SharedTiles:
        """Tiles of this shape, written by `fill` straight into the memory that the scheduler will read."""
        self._close_claimed()
        memory = self._allocate(HEADER + int(np.prod(shape))) if self._shared else None
        if memory is None:
            pixels = np.empty(shape, np.uint8)
            fill(pixels)
            return SharedTiles(pixels, digest, table)
        memory.view[DIGEST] = digest
        pixels = np.frombuffer(memory.view, np.uint8, offset=HEADER).reshape(shape)
        try:
            fill(pixels)
        except BaseException:
            os.close(memory.fd)
            raise
        with self._lock:
            self._open.append(memory)
        return SharedTiles(pixels, digest, table, memory=memory)

    def held(self) -> int:
        """How many images' memory is open here."""
        with self._lock:
            return len(self._open)

    def _allocate(self, size: int) -> _Memory | None:
        fd = os.memfd_create("vetline-tiles", os.MFD_CLOEXEC)
        try:
            os.posix_fallocate(fd, 0, size)  # so that want of memory is an error here, not a SIGBUS later
            return _Memory(os.getpid(), fd, size, mmap.mmap(fd, size), self._clock())
        except OSError:
            os.close(fd)
            return None  # the pixels then travel inside the message

    def _close_claimed(self) -> None:
        """Dropping the map itself is left to the collector: pixels may still be looked at."""
        now = self._clock()
        with self._lock:
            kept = deque[_Memory]()
            for memory in self._open:
                if memory.claimed(now):
                    os.close(memory.fd)
                else:
                    kept.append(memory)
            self._open = kept


def shares_memory_with_children() -> bool:
    """Whether a child process can map our memfd memory, as the scheduler must. Takes some 30 ms."""
    if not hasattr(os, "memfd_create"):
        return False
    fd = os.memfd_create("vetline-probe", os.MFD_CLOEXEC)
    try:
        os.write(fd, b"vetline")
        read = "import sys; assert open(sys.argv[1], 'r+b').read() == b'vetline'"
        command = [sys.executable, "-I", "-S", "-c", read, f"/proc/{os.getpid()}/fd/{fd}"]
        return subprocess.run(command, capture_output=True, timeout=30, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False
    finally:
        os.close(fd)

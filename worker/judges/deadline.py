"""A wall-clock deadline over every socket operation of an HTTP call.

Connections get a network backend that looks, before each connect, read and write, at the deadline of the calling thread.
"""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Self

import httpcore

from intake.timed_stream import Late, TimedStream


@dataclass(frozen=True, slots=True)
class Deadline:
    """A moment on the monotonic clock, in seconds."""

    at_s: float

    @classmethod
    def after(cls, seconds: float) -> Self:
        return cls(time.monotonic() + seconds)

    def left_s(self) -> float:
        return self.at_s - time.monotonic()

    def sooner(self, seconds: float) -> "Deadline":
        """This deadline, or one so many seconds from now if that comes first."""
        return Deadline(min(self.at_s, time.monotonic() + seconds))

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside, this thread's operations on a DeadlineBackend's sockets end by the deadline."""
        token = _current.set(self)
        try:
            yield
        finally:
            _current.reset(token)


_current: ContextVar[Deadline | None] = ContextVar("deadline", default=None)


def _bounded_s(timeout: float | None, late: Late) -> float | None:
    deadline = _current.get()
    if deadline is None:
        return timeout
    left_s = deadline.left_s()
    if left_s <= 0:
        raise late("the deadline has passed")
    return left_s if timeout is None else min(timeout, left_s)


class DeadlineStream(TimedStream):
    """A socket whose reads and writes end by the deadline of the thread that makes them."""

    def wait_s(self, timeout: float | None, late: Late) -> float | None:
        return _bounded_s(timeout, late)

    def over(self, inner: httpcore.NetworkStream) -> httpcore.NetworkStream:
        return DeadlineStream(inner)


class DeadlineBackend(httpcore.NetworkBackend):
    """Opens sockets that keep to deadlines."""

    def __init__(self, *, connect_timeout_s: float) -> None:
        self._inner = httpcore.SyncBackend()
        self._connect_timeout_s = connect_timeout_s

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        wanted = self._connect_timeout_s if timeout is None else min(timeout, self._connect_timeout_s)
        left_s = _bounded_s(wanted, httpcore.ConnectTimeout)
        return DeadlineStream(self._inner.connect_tcp(host, port, left_s, local_address, socket_options))

"""Keep-alive connections to one server, shared by all threads; there are as many as are in use at once.

httpcore's own pool looks at every connection for each request: with 128 threads that took two thirds of the
judge's processor time. Here a thread takes the connection that was used last and puts it back on top, so the work
for a request does not grow with their number, and those at the bottom run out and are closed.
"""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import httpcore

from worker.judges.deadline import DeadlineBackend


class Connections:
    """Thread-safe: every step on the deque is one atomic operation."""

    def __init__(self, url: str, *, keep_alive_s: float, connect_timeout_s: float) -> None:
        self._origin = httpcore.URL(url).origin
        self._keep_alive_s = keep_alive_s
        self._backend = DeadlineBackend(connect_timeout_s=connect_timeout_s)
        self._idle: deque[httpcore.HTTPConnection] = deque()
        self._closed = False

    @contextmanager
    def one(self) -> Iterator[httpcore.HTTPConnection]:
        """A connection for one exchange, not yet open or idle. It is kept if the exchange leaves it idle."""
        connection = self._take()
        try:
            yield connection
        finally:
            self._give_back(connection)

    def close(self) -> None:
        """Close those that are idle; those in use are closed as they come back."""
        self._closed = True
        while (connection := self._pop_newest()) is not None:
            connection.close()

    def _take(self) -> httpcore.HTTPConnection:
        while (connection := self._pop_newest()) is not None:
            if not connection.has_expired():
                return connection
            connection.close()
        return httpcore.HTTPConnection(
            self._origin, keepalive_expiry=self._keep_alive_s, network_backend=self._backend
        )

    def _pop_newest(self) -> httpcore.HTTPConnection | None:
        try:
            return self._idle.pop()
        except IndexError:
            return None

    def _give_back(self, connection: httpcore.HTTPConnection) -> None:
        if self._closed or not connection.is_available():
            connection.close()
            return
        self._idle.append(connection)
        self._drop_oldest()
        if self._closed:  # closed in between
            self.close()

    def _drop_oldest(self) -> None:
        """Close the connection that has been idle longest, if it has run out."""
        try:
            oldest = self._idle.popleft()
        except IndexError:
            return
        if oldest.has_expired():
            oldest.close()
        else:
            self._idle.appendleft(oldest)

"""A TCP proxy on loopback that does to a connection what networks do: delay it, cut it, leave it half open.

    with Proxy(server_port) as proxy:
        ... connect to proxy.port ...
        proxy.cut_after(up=120)        # reset the connection once 120 more bytes have gone to the server
        proxy.cut_after(down=0)        # ... once the server has answered, and before the client hears of it

It runs an asyncio loop on a thread of its own; every method may be called from any thread.
"""

import asyncio
import socket
import struct
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

from sqlalchemy.engine import make_url

T = TypeVar("T")
Direction = Literal["up", "down"]  # up: to the server

_CHUNK = 65_536
_SEEN_BYTES = 4096  # of what a client sent last, for `swallow_replies` to look at
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER for 0 s: closing sends RST, as a machine that went away does


@dataclass(eq=False, slots=True)
class Link:
    """One connection through the proxy."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    sent: bytearray = field(default_factory=bytearray)  # what the client sent last
    swallowing: bool = False  # its replies vanish; neither side hears that anything is wrong

    def reset(self) -> None:
        for writer in (self.client, self.server):
            raw = writer.get_extra_info("socket")
            if raw is not None and raw.fileno() >= 0:
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            writer.transport.abort()


@dataclass(slots=True)
class _Cut:
    """A cut to come: `left` more bytes in this direction, over all connections, and the one they are on ends."""

    direction: Direction
    left: int


class Proxy:
    """Forwards what connects to `port` to a server's port."""

    def __init__(self, server_port: int) -> None:
        self._server_port = server_port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._listener: asyncio.Server | None = None
        self._links: set[Link] = set()
        self._takers: set[asyncio.Task[Any]] = set()
        self._cut: _Cut | None = None
        self._swallows: Callable[[bytes], bool] | None = None
        self.port = 0
        self.latency_s = 0.0  # added in each direction
        self.cuts = 0  # connections that cut_after has ended

    def __enter__(self) -> Self:
        self._thread.start()
        self._call(self._listen())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._call(self._shut())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=10)
        self._loop.close()

    def cut_after(self, *, up: int | None = None, down: int | None = None) -> None:
        """Reset a connection once this many more bytes went to the server, or came from it.

        down=0 waits for the server to answer, so that it has done what it was asked, and drops the answer.
        """
        assert (up is None) != (down is None), "one direction"
        cut = _Cut("up", up) if up is not None else _Cut("down", down or 0)
        self._call(self._set_cut(cut))

    def cut_all(self) -> None:
        """Reset every connection. New ones are taken."""
        self._call(self._reset_all())

    def swallow_replies(self, after: Callable[[bytes], bool] | None, *, new_ones_too: bool = False) -> int:
        """Leave half open each connection whose client has sent what `after` looks for; say how many there are.

        What the client sends still arrives; what the server answers vanishes, and no side is told.
        after: is given the last 4096 bytes that the client sent. None: replies pass again on new connections.
        new_ones_too: also connections on which the client sends it from now on.
        """
        return self._call(self._swallow(after, new_ones_too))

    async def _listen(self) -> None:
        self._listener = await asyncio.start_server(self._take, "127.0.0.1", 0)
        self.port = self._listener.sockets[0].getsockname()[1]

    async def _shut(self) -> None:
        assert self._listener is not None
        self._listener.close()
        await self._reset_all()
        while self._takers:
            await asyncio.wait(self._takers)

    async def _reset_all(self) -> None:
        for link in list(self._links):
            link.reset()

    async def _set_cut(self, cut: _Cut) -> None:
        self._cut = cut

    async def _swallow(self, after: Callable[[bytes], bool] | None, new_ones_too: bool) -> int:
        self._swallows = after if new_ones_too else None
        found = [link for link in self._links if after is not None and after(bytes(link.sent))]
        for link in found:
            link.swallowing = True
        return len(found)

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._takers.add(task)
        task.add_done_callback(self._takers.discard)
        try:
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._server_port)
        except OSError:
            writer.transport.abort()  # the server is away
            return
        link = Link(client=writer, server=up_writer)
        self._links.add(link)
        try:
            await asyncio.gather(
                self._pump(link, "up", reader, up_writer), self._pump(link, "down", up_reader, writer)
            )
        except OSError:
            pass  # one side was reset, and so is the other
        finally:
            self._links.discard(link)
            link.reset()

    async def _pump(
        self, link: Link, direction: Direction, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        while data := await reader.read(_CHUNK):
            if self.latency_s:
                await asyncio.sleep(self.latency_s)
            if direction == "up":
                self._remember(link, data)
            if direction == "down" and link.swallowing:
                continue
            whole = len(data)
            data = data[: self._allowed(direction, whole)]
            writer.write(data)
            await writer.drain()
            if len(data) < whole or self._is_cut_here(direction):
                self._end_by_cut(link)
                return
        raise ConnectionResetError("one side ended")

    def _remember(self, link: Link, data: bytes) -> None:
        link.sent += data
        del link.sent[:-_SEEN_BYTES]
        if self._swallows is not None and self._swallows(bytes(link.sent)):
            link.swallowing = True

    def _allowed(self, direction: Direction, count: int) -> int:
        """How many of these bytes still pass."""
        if self._cut is None or self._cut.direction != direction:
            return count
        passing = min(count, self._cut.left)
        self._cut.left -= passing
        return passing

    def _is_cut_here(self, direction: Direction) -> bool:
        return self._cut is not None and self._cut.direction == direction and self._cut.left == 0

    def _end_by_cut(self, link: Link) -> None:
        self._cut = None
        self.cuts += 1
        link.reset()

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=10)


@contextmanager
def through_proxy(database_url: str) -> Iterator[tuple[Proxy, str]]:
    """A proxy to this database, and the database's URL through it."""
    url = make_url(database_url)
    assert url.port is not None
    with Proxy(url.port) as proxy:
        yield proxy, url.set(port=proxy.port).render_as_string(hide_password=False)

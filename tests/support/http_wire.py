"""A very small HTTP/1.1 server side for tests: keep-alive, whole bodies, and the power to break a connection.

A real framework would hide what these tests are about: resets in the middle of an answer, sockets that stop
listening, idle connections that close after a given time.
"""

import asyncio
import contextlib
import socket
import struct
import sys
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

MAX_HEAD_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class HttpRequest:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    connection: int  # number of the connection that it came on, from 1


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    status: int = 200
    body: bytes = b""
    media_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)
    close_after: bool = False
    stuck_after: bool = False  # keep the connection open afterwards, and never read from it again

    def wire(self) -> bytes:
        head = [
            f"HTTP/1.1 {self.status} Scripted",
            f"content-type: {self.media_type}",
            f"content-length: {len(self.body)}",
            *(f"{name}: {value}" for name, value in self.headers.items()),
        ]
        return "\r\n".join(head).encode() + b"\r\n\r\n" + self.body


class Break(Exception):
    """Raised by a handler to end the connection instead of answering."""

    def __init__(self, how: str, partial: bytes = b"") -> None:
        super().__init__(how)
        self.how = how  # reset, close
        self.partial = partial  # bytes sent before


Handler = Callable[[HttpRequest], Awaitable[HttpAnswer]]


class Connection(asyncio.Protocol):
    """One client connection. A handler under way is cancelled when the client goes."""

    def __init__(
        self,
        handler: Handler,
        *,
        number: int,
        keep_alive_s: Callable[[], float],
        on_lost: Callable[["Connection"], None],
    ) -> None:
        self._handler = handler
        self._number = number
        self._on_lost = on_lost
        self._keep_alive_s = keep_alive_s
        self._buffer = bytearray()
        self._task: asyncio.Task[None] | None = None
        self._idle: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._forget_idle()
        self._buffer += data
        self._start_next()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget_idle()
        if self._task is not None:
            self._task.cancel()
        self._on_lost(self)

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _forget_idle(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None

    def _start_next(self) -> None:
        if self._task is not None:
            return
        request = self._parse()
        if request is None:
            return
        self._task = asyncio.get_running_loop().create_task(self._serve(request))

    def _parse(self) -> HttpRequest | None:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            if len(self._buffer) > MAX_HEAD_BYTES:
                self.abort()
            return None
        first, *rest = self._buffer[:end].decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in rest)}
        stop = end + 4 + int(headers.get("content-length", "0"))
        if len(self._buffer) < stop:
            return None
        body = bytes(self._buffer[end + 4 : stop])
        del self._buffer[:stop]
        method, path, _ = first.split(" ", 2)
        return HttpRequest(method, path, headers, body, self._number)

    async def _serve(self, request: HttpRequest) -> None:
        transport = self._transport
        assert transport is not None
        try:
            answer = await self._handler(request)
        except Break as broken:
            self._break(transport, broken)
            return
        except Exception:  # noqa: BLE001 - a fault of the script must be seen by the test, not hang it
            said = traceback.format_exc()
            sys.stderr.write(said)
            answer = HttpAnswer(599, said.encode(), "text/plain", close_after=True)
        if transport.is_closing():
            return
        transport.write(answer.wire())
        if answer.stuck_after:
            return  # the task stays set, so that nothing more is read
        if answer.close_after or request.headers.get("connection", "").lower() == "close":
            transport.close()
            return
        self._idle = asyncio.get_running_loop().call_later(self._keep_alive_s(), transport.close)
        self._task = None
        self._start_next()

    @staticmethod
    def _break(transport: asyncio.Transport, broken: Break) -> None:
        if broken.partial:
            transport.write(broken.partial)
        if broken.how == "close":
            transport.close()
            return
        sock = transport.get_extra_info("socket")
        # Linger 0 makes the kernel send RST instead of FIN: what a killed process' peer sees.
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()


class HttpListener:
    """Listens on one port of 127.0.0.1; can drop every connection and stop, and listen there again."""

    def __init__(self, handler: Handler, *, port: int, keep_alive_s: Callable[[], float]) -> None:
        self._handler = handler
        self._keep_alive_s = keep_alive_s
        self.port = port
        self.accepted = 0
        self.on_change: Callable[[], None] = lambda: None  # called after a connection was lost
        self._open: set[Connection] = set()
        self._server: asyncio.Server | None = None
        self._held: socket.socket | None = None  # bound, and not listened on

    def _accept(self) -> Connection:
        self.accepted += 1
        connection = Connection(
            self._handler, number=self.accepted, keep_alive_s=self._keep_alive_s, on_lost=self._lose
        )
        self._open.add(connection)
        return connection

    def _lose(self, connection: Connection) -> None:
        # asyncio closes the socket only after it has told the protocol; count the connection as lost after that.
        asyncio.get_running_loop().call_soon(self._forget, connection)

    def _forget(self, connection: Connection) -> None:
        self._open.discard(connection)
        self.on_change()

    @property
    def open_count(self) -> int:
        return len(self._open)

    async def listen(self) -> None:
        if self._server is not None:
            return
        if self._held is None:
            self._held = _bound(self.port)
        self._server = await asyncio.get_running_loop().create_server(
            self._accept, sock=self._held, backlog=1024
        )
        self._held = None
        self.port = self._server.sockets[0].getsockname()[1]

    def fileno(self) -> int:
        """The listening socket's."""
        assert self._server is not None, "it does not listen"
        return self._server.sockets[0].fileno()

    async def stop(self, *, hold: bool = False) -> None:
        """hold: keep the port, on which connections are refused, for the next `listen`: others would take it."""
        if self._server is not None:
            self._server.close()
            self._server = None
            self._held = _bound(self.port) if hold else None
        elif self._held is not None and not hold:
            self._held.close()
            self._held = None
        for connection in tuple(self._open):
            connection.abort()
        await asyncio.sleep(0)


def _bound(port: int) -> socket.socket:
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind(("127.0.0.1", port))
    return bound

"""TLS in front of a server on loopback that has none: the servers that tests start are built without OpenSSL.

What a client meets is real: certificates of a real authority, and whatever the client's own TLS makes of them.
"""

import asyncio
import ssl
import threading
from types import TracebackType
from typing import Self

import trustme

_CHUNK = 65_536
_SSL_REQUEST = bytes.fromhex("0000000804d2162f")  # how a Postgres client asks whether it may begin TLS


class TlsFront:
    """Takes TLS on `port` and passes what is in it to a server's port.

    postgres: begin as Postgres does, where the client asks for TLS in plain text first.
    """

    def __init__(self, server_port: int, context: ssl.SSLContext, *, postgres: bool = False) -> None:
        self._server_port = server_port
        self._context = context
        self._postgres = postgres
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="tls", daemon=True)
        self._takers: set[asyncio.Task[None]] = set()
        self.port = 0
        self.versions: set[str | None] = set()  # of TLS, that were spoken with clients that passed
        self.client_names: set[str] = set()  # that clients proved by a certificate

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._shut(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _listen(self) -> None:
        self._listener = await asyncio.start_server(self._take, "127.0.0.1", 0)
        self.port = self._listener.sockets[0].getsockname()[1]

    async def _shut(self) -> None:
        self._listener.close()
        for task in self._takers:
            task.cancel()
        if self._takers:
            await asyncio.wait(self._takers)

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._takers.add(task)
        task.add_done_callback(self._takers.discard)
        try:
            await self._serve(reader, writer)
        except (OSError, EOFError, asyncio.CancelledError):
            pass  # refused, by one side or the other; or the test is over
        finally:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._postgres:
            if await reader.readexactly(8) != _SSL_REQUEST:
                return
            writer.write(b"S")
            await writer.drain()
        await writer.start_tls(self._context)
        self._note(writer.get_extra_info("ssl_object"))
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._server_port)
        try:
            await asyncio.wait(
                [
                    asyncio.ensure_future(_pump(reader, up_writer)),
                    asyncio.ensure_future(_pump(up_reader, writer)),
                ],
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            up_writer.transport.abort()

    def _note(self, spoken: ssl.SSLObject) -> None:
        self.versions.add(spoken.version())
        for ((_, name),) in (spoken.getpeercert() or {}).get("subject", ()):
            self.client_names.add(str(name))


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(_CHUNK):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass


def serving(authority: trustme.CA, *names: str, clients: trustme.CA | None = None) -> ssl.SSLContext:
    """A server's side, with a certificate of these names. clients: ask for a certificate of theirs."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(context)
    if clients is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        clients.configure_trust(context)
    return context

"""A web server that does to its clients what a hostile or broken host of images does.

It speaks bytes, not HTTP: most of what it says no server library would let it say. Each path is a trick; the
tricks that wait, wait for the client to leave or for the server to close, never for time to pass.
"""

import socket
import ssl
import struct
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from urllib.parse import parse_qs, urlsplit

DRIP_S = 0.05  # between the bytes of whatever drips


@dataclass(frozen=True)
class Seen:
    """One request, as it arrived."""

    path: str
    headers: dict[str, str]
    connection: int
    server_name: str | None  # as TLS's SNI named it


@dataclass
class Visit:
    """One connection, and what a trick may do with it."""

    host: "ImageHost"
    wire: socket.socket
    number: int
    path: str = "/"
    query: dict[str, str] = field(default_factory=dict)

    def say(self, *lines: str, body: bytes = b"") -> None:
        self.wire.sendall("\r\n".join([*lines, "", ""]).encode("latin-1") + body)

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        lines = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self.say(f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(body)}", *lines, body=body)

    def drip(self, data: bytes) -> None:
        """One byte at a time, until the client leaves."""
        for byte in data:
            if self.host.closing.wait(DRIP_S):
                return
            self.wire.sendall(bytes([byte]))

    def flood(self, chunk: bytes) -> None:
        """The same chunk until the client leaves."""
        while not self.host.closing.is_set():
            self.wire.sendall(chunk)
            self.host.sent_bytes += len(chunk)

    def hold(self) -> None:
        """Say nothing until the client leaves."""
        while not self.host.closing.is_set():
            with suppress(TimeoutError):
                if not self.wire.recv(1):
                    return

    def reset(self) -> None:
        self.wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.wire.close()


Trick = Callable[[Visit], None]


class ImageHost:
    """Listens on loopback, in threads. Use as a context manager; `seen` and `most_at_once` tell what came."""

    def __init__(self, photograph: bytes = b"\xff\xd8\xff", *, tls: ssl.SSLContext | None = None) -> None:
        self.photograph = photograph
        self.seen: list[Seen] = []
        self.connections = 0
        self.most_at_once: Counter[str] = Counter()  # by the path's first part
        self.sent_bytes = 0
        self.closing = threading.Event()
        self.released = threading.Event()  # lets /held answer
        self.tricks: dict[str, Trick] = dict(TRICKS)
        self.fallback: Trick = lambda visit: visit.answer(404)
        self._now: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._tls = tls
        if tls is not None:
            tls.sni_callback = self._note_server_name
        self._server_names: dict[object, str | None] = {}
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port: int = self._listener.getsockname()[1]

    def __enter__(self) -> "ImageHost":
        self._spawn(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.closing.set()
        self.released.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(10)

    def uri(self, path: str = "/photo.jpg", host: str = "127.0.0.1") -> str:
        return f"{'https' if self._tls else 'http'}://{host}:{self.port}{path}"

    def _note_server_name(self, wire: ssl.SSLObject, name: str | None, _context: ssl.SSLContext) -> None:
        self._server_names[wire] = name

    def _spawn(self, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self.closing.is_set():
            try:
                wire, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._spawn(self._serve, wire, self.connections)

    def _serve(self, wire: socket.socket, number: int) -> None:
        try:
            with suppress(OSError):
                if self._tls is not None:
                    wire.settimeout(5)
                    wire = self._tls.wrap_socket(wire, server_side=True)
                while self._serve_one(Visit(self, wire, number)):
                    pass
        finally:
            with suppress(OSError):
                wire.close()

    def _serve_one(self, visit: Visit) -> bool:
        """Whether the connection may carry another request."""
        head = self._read_head(visit.wire)
        if head is None:
            return False
        first, *lines = head.decode("latin-1").split("\r\n")
        target = first.split(" ")[1]
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        with self._lock:
            self.seen.append(Seen(target, headers, visit.number, self._server_names.get(visit.wire)))
        visit.path = urlsplit(target).path
        visit.query = {name: values[0] for name, values in parse_qs(urlsplit(target).query).items()}
        visit.wire.settimeout(10)
        key = visit.path.split("/")[1]
        with self._lock:
            self._now[key] += 1
            self.most_at_once[key] = max(self.most_at_once[key], self._now[key])
        try:
            self.tricks.get(key, self.fallback)(visit)
        finally:
            with self._lock:
                self._now[key] -= 1
        return key in KEEPS_ALIVE

    def _read_head(self, wire: socket.socket) -> bytes | None:
        head = b""
        wire.settimeout(0.1)
        while b"\r\n\r\n" not in head:
            try:
                more = wire.recv(65536)
            except TimeoutError:
                if self.closing.is_set():
                    return None
                continue
            if not more:
                return None
            head += more
        return head.partition(b"\r\n\r\n")[0]


def _redirect(visit: Visit) -> None:
    visit.answer(int(visit.query.get("status", "302")), Location=visit.query["to"])


def _loop(visit: Visit) -> None:
    visit.answer(302, Location=visit.path)


def _status(visit: Visit) -> None:
    headers = {"Retry_After": visit.query["after"]} if "after" in visit.query else {}
    visit.answer(int(visit.path.rpartition("/")[2]), b"never mind", **headers)


def _held(visit: Visit) -> None:
    visit.host.released.wait(30)
    visit.answer(200, visit.host.photograph)


def _close_unasked(visit: Visit) -> None:
    """Promises to keep the connection, and closes it."""
    visit.answer(200, visit.host.photograph, Connection="keep-alive")


def _announced(visit: Visit) -> None:
    visit.say("HTTP/1.1 200 OK", f"Content-Length: {visit.query['bytes']}")
    visit.hold()


def _said(*lines: str, body: bytes = b"") -> Trick:
    return lambda visit: visit.say(*lines, body=body)


OK = "HTTP/1.1 200 OK"
CHUNKED = "Transfer-Encoding: chunked"
CHUNK = b"10000\r\n" + bytes(65536) + b"\r\n"

TRICKS: dict[str, Trick] = {
    "photo.jpg": lambda visit: visit.answer(
        200, visit.host.photograph, Content_Type="image/jpeg", ETag='"abc"'
    ),
    "held": _held,
    "empty": lambda visit: visit.answer(200),
    "html": lambda visit: visit.answer(200, b"<!doctype html><p>Sign in", Content_Type="image/jpeg"),
    "redirect": _redirect,
    "loop": _loop,
    "status": _status,
    "close-unasked": _close_unasked,
    # slow
    "silent": lambda visit: visit.hold(),
    "slow-status": lambda visit: visit.drip(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 10_000),
    "slow-body": lambda visit: (visit.say(OK, "Content-Length: 100000"), visit.drip(bytes(100_000)))[0],
    "stops-midway": lambda visit: (visit.say(OK, "Content-Length: 999", body=b"half"), visit.hold())[0],
    "slow-chunks": lambda visit: (visit.say(OK, CHUNKED), visit.drip(b"1\r\nx\r\n" * 10_000))[0],
    # endless
    "endless": lambda visit: (visit.say(OK), visit.flood(bytes(65536)))[0],
    "endless-chunks": lambda visit: (visit.say(OK, CHUNKED), visit.flood(CHUNK))[0],
    "endless-headers": lambda visit: (
        visit.wire.sendall(b"HTTP/1.1 200 OK\r\n"),
        visit.flood(b"X: y\r\n" * 10_000),
    )[0],
    "endless-line": lambda visit: visit.flood(b"H" * 65536),
    "endless-continue": lambda visit: visit.flood(b"HTTP/1.1 100 Continue\r\n\r\n" * 1_000),
    # lying
    "announced": _announced,
    "too-short": _said(OK, "Content-Length: 5000", body=b"not 5,000 bytes"),
    "too-long": _said(OK, "Content-Length: 3", body=b"\xff\xd8\xff and much more"),
    "cut-chunk": _said(OK, CHUNKED, body=b"ffff\r\nnot so many"),
    "bad-chunk": _said(OK, CHUNKED, body=b"zz\r\nwhat\r\n0\r\n\r\n"),
    "negative-length": _said(OK, "Content-Length: -1", body=b"x"),
    "two-lengths": _said(OK, "Content-Length: 1", "Content-Length: 2", body=b"xy"),
    "gzip": _said(OK, "Content-Encoding: gzip", "Content-Length: 3", body=b"\x1f\x8b\x08"),
    "gzip-twice": _said(OK, "Content-Encoding: identity, GZip", "Content-Length: 2", body=b"\x1f\x8b"),
    "mistaken-encoding": _said(
        OK, "Content-Encoding: aws-chunked", "Content-Length: 3", body=b"\xff\xd8\xff"
    ),
    "gzip-transfer": _said(OK, "Transfer-Encoding: gzip, chunked", body=b"0\r\n\r\n"),
    "partial": lambda visit: visit.answer(206, b"part", Content_Range="bytes 0-3/9"),
    "nothing": lambda visit: visit.say("HTTP/1.1 204 No Content"),
    "switch": lambda visit: (visit.say("HTTP/1.1 101 Switching", "Upgrade: x"), visit.hold())[0],
    "not-http": lambda visit: visit.wire.sendall(b"SSH-2.0-OpenSSH_9.6\r\n"),
    "old": lambda visit: visit.wire.sendall(b"<html>HTTP/0.9"),
    "closes": lambda visit: None,
    "resets": lambda visit: visit.reset(),
    "resets-midway": lambda visit: (visit.say(OK, "Content-Length: 9999", body=b"half"), visit.reset())[0],
}

# Whose connection may carry another request.
KEEPS_ALIVE = frozenset({"photo.jpg", "held", "empty", "html", "redirect", "loop", "status"})

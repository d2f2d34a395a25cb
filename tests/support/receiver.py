"""A receiver of webhooks that checks signatures as docs/consumers.md shows, and fails, hangs or lies when told to."""

import base64
import hashlib
import hmac
import json
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Self

Answer = Callable[["Receiver", socket.socket], None]


def status(code: int, *, body: bytes = b"", more: str = "") -> Answer:
    def answer(_: "Receiver", wire: socket.socket) -> None:
        wire.sendall(f"HTTP/1.1 {code} Whatever\r\nContent-Length: {len(body)}\r\n{more}\r\n".encode() + body)

    return answer


def hang(receiver: "Receiver", wire: socket.socket) -> None:
    receiver.closing.wait(60)


def cut(_: "Receiver", wire: socket.socket) -> None:
    """Says that all is well, and breaks off."""
    wire.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nOK")
    wire.close()


def flood(receiver: "Receiver", wire: socket.socket) -> None:
    """Says that all is well, and a gigabyte more."""
    wire.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
    with suppress(OSError):
        while not receiver.closing.is_set():
            receiver.flooded += wire.send(b"x" * 65536)


def drip(receiver: "Receiver", wire: socket.socket) -> None:
    """A header a byte at a time, for ever."""
    with suppress(OSError):
        while not receiver.closing.wait(0.05):
            wire.sendall(b"H")


OK = status(204)


@dataclass
class Receiver:
    """Listens on loopback. answer: what the next messages get. taken: the keys of verdicts, in the order of taking."""

    secret: str = ""
    answer: Answer = OK
    taken: list[str] = field(default_factory=list)
    asked: list[dict[str, Any]] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    signatures: list[list[str]] = field(default_factory=list)
    forged: int = 0
    flooded: int = 0
    script: list[Answer] = field(default_factory=list)  # goes before `answer`, one a message
    closing: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._listener.getsockname()[1]
        self._threads: list[threading.Thread] = []
        self._spawn(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(10)

    def url(self, path: str = "/hook") -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def _spawn(self, run: Callable[..., None], *values: Any) -> None:
        thread = threading.Thread(target=run, args=values, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                wire, _ = self._listener.accept()
                self._spawn(self._serve, wire)

    def _serve(self, wire: socket.socket) -> None:
        with wire, suppress(OSError):
            wire.settimeout(60)
            while self._one(wire):
                pass

    def _one(self, wire: socket.socket) -> bool:
        data = b""
        while b"\r\n\r\n" not in data:
            chunk = wire.recv(65536)
            if not chunk:
                return False
            data += chunk
        head, _, body = data.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")[1:]
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        while len(body) < int(headers["content-length"]):
            body += wire.recv(65536)
        self._note(headers, body)
        answer = self.script.pop(0) if self.script else self.answer
        content = json.loads(body)
        if content["type"] == "verdict.recorded" and answer is OK:
            self.taken.append(content["data"]["key"])
        answer(self, wire)
        return wire.fileno() != -1

    def _note(self, headers: dict[str, str], body: bytes) -> None:
        signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
        key = base64.b64decode(self.secret.removeprefix("whsec_"))
        wanted = "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
        found = headers["webhook-signature"].split(" ")
        if wanted not in found:
            self.forged += 1
        self.signatures.append(found)
        self.ids.append(headers["webhook-id"])
        self.asked.append(json.loads(body))

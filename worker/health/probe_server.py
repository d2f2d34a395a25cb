"""Probes over HTTP, from a thread of the worker's own:

    /live     200 while its loops turn, else 503: to be started anew
    /ready    200 while it would take and finish an item, else 503
    /status   a WorkerStatus, as JSON
    /metrics  for Prometheus

Both say in words what hangs or what is waited for. A Redis or a runtime that is away makes a worker not ready, and
never not live: its end would cost a model that is loaded.
"""

import errno
import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import structlog
from prometheus_client import REGISTRY
from prometheus_client.exposition import choose_encoder

from moderation.errors import BadSetting
from moderation.worker_status import WorkerStatus
from worker.health.probe_address import ProbeAddress, ProbeSettings, write_probe_address

log = structlog.get_logger()

_READ_S = 5  # a client that sends nothing is let go
_TEXT = "text/plain; charset=utf-8"
_OK, _NOT_FOUND, _UNAVAILABLE = 200, 404, 503


class ProbeServer:
    """Answers from the moment it is made until `stop`."""

    def __init__(self, status: Callable[[], WorkerStatus], *, pid: int, settings: ProbeSettings) -> None:
        """Raises BadSetting where the address is not this machine's."""
        self._server = _listening(settings)
        self._server.status = status
        self.port: int = self._server.server_address[1]
        self._note: Path | None = write_probe_address(
            ProbeAddress(pid=pid, address=settings.address, port=self.port)
        )
        self._thread = threading.Thread(target=self._server.serve_forever, name="probes", daemon=True)
        self._thread.start()
        log.info("probes_listen", address=settings.address, port=self.port)

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        if self._note is not None:
            self._note.unlink(missing_ok=True)


class _HttpServer(ThreadingHTTPServer):
    daemon_threads = True
    status: Callable[[], WorkerStatus]

    def handle_error(self, request: Any, client_address: Any) -> None:
        log.debug("probe_broke_off", exc_info=True)  # whoever asked has gone


def _listening(settings: ProbeSettings) -> _HttpServer:
    """On the port that was asked for; where another worker of this host has it, on a free one, which is said."""
    kind = _HttpServer6 if ":" in settings.address else _HttpServer
    try:
        return kind((settings.address, settings.port or 0), _ProbeHandler)
    except OSError as exc:
        if exc.errno != errno.EADDRINUSE:
            raise BadSetting(f"VETLINE_PROBE_ADDRESS, VETLINE_PROBE_PORT: {exc.strerror}") from exc
    log.warning("probe_port_taken", port=settings.port, advice="probes listen on a free port instead")
    return kind((settings.address, 0), _ProbeHandler)


class _HttpServer6(_HttpServer):
    address_family = socket.AF_INET6


class _ProbeHandler(BaseHTTPRequestHandler):
    timeout = _READ_S
    server: _HttpServer
    server_version, sys_version = "vetline", ""

    def do_GET(self) -> None:
        path = urlsplit(self.path).path.rstrip("/")
        if path == "/metrics":
            encode, media_type = choose_encoder(self.headers.get("Accept", ""))
            self._answer(_OK, encode(REGISTRY), media_type)
            return
        status = self.server.status()
        if path == "/status":
            self._answer(_OK, status.model_dump_json(indent=2).encode() + b"\n", "application/json")
        elif path == "/live":
            self._say(status.live, "live", status.hangs)
        elif path == "/ready":
            waits = tuple(f"{wait.name}: {wait.reason}" for wait in status.waiting)
            self._say(status.ready, "ready", status.hangs + waits)
        else:
            self._answer(_NOT_FOUND, b"/live, /ready, /status or /metrics\n", _TEXT)

    def do_HEAD(self) -> None:
        self.do_GET()

    def _say(self, well: bool, word: str, why: tuple[str, ...]) -> None:
        lines = (word,) if well else (f"not {word}", *why)
        self._answer(_OK if well else _UNAVAILABLE, "".join(f"{line}\n" for line in lines).encode(), _TEXT)

    def _answer(self, status: int, body: bytes, media_type: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", media_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name for it
        """Nothing: a probe comes every few seconds."""

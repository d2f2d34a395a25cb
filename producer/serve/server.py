"""Listens, serves until it is told to stop, and lets what is under way end."""

import ipaddress
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from prometheus_client import start_http_server
from starlette.types import ASGIApp

from moderation.errors import BadSetting

_GRACE_S = 20  # what is under way may end; a submission takes milliseconds, a retried one a few seconds


def bound_socket(host: str, port: int) -> socket.socket:
    """A socket that listens there. Raises BadSetting where it cannot be had."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as exc:
        raise BadSetting(f"cannot listen on {host} port {port}: {exc.strerror}") from exc
    return listener


def serve_metrics(address: str, port: int) -> int:
    """Answer Prometheus from a thread, with all that this process counts; the port. Raises BadSetting."""
    try:
        server, _ = start_http_server(port, address)
    except OSError as exc:
        raise BadSetting(f"cannot serve metrics on {address} port {port}: {exc.strerror}") from exc
    return server.server_port


def is_loopback(listener: socket.socket) -> bool:
    """Whether only this machine can reach it."""
    return ipaddress.ip_address(listener.getsockname()[0].partition("%")[0]).is_loopback


def serve(app: ASGIApp, listener: socket.socket) -> None:
    """Serve until SIGTERM (then return) or Ctrl-C (then raise KeyboardInterrupt)."""
    config = uvicorn.Config(
        app, log_config=None, access_log=False, server_header=False, proxy_headers=False, lifespan="on",
        timeout_keep_alive=15, timeout_graceful_shutdown=_GRACE_S,
        h11_max_incomplete_event_size=32_768,  # bytes of a request's head
        http="h11",  # one parser, wherever it is installed
    )  # fmt: skip
    with _quiet_sigterm():
        uvicorn.Server(config).run(sockets=[listener])


@contextmanager
def _quiet_sigterm() -> Iterator[None]:
    """uvicorn raises the signal again once all has ended; being told to stop is no failure."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)

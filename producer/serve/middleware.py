"""What every request passes, before and after the app: how many at once, which Host, which headers, one log line."""

import time
from collections.abc import MutableMapping
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from moderation import metrics
from moderation.log import get_logger
from producer.serve.problems import Problem

log = get_logger(__name__)

_LOOPBACK_HOSTS = frozenset({b"127.0.0.1", b"localhost", b"[::1]"})
_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"),
]


class RequestMiddleware:
    """at_once: requests under way. loopback_only: answer only to a loopback Host, so that no web page reaches us by
    a name of its own (DNS rebinding); where there are tokens, they keep it out."""

    def __init__(self, app: ASGIApp, *, at_once: int, loopback_only: bool) -> None:
        self._app = app
        self._room = at_once
        self._loopback_only = loopback_only

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        answered = _Answered(scope, send)
        if (problem := self._refusal(scope)) is not None:
            await problem.response()(scope, receive, answered.send)
            answered.count()
            return
        self._room -= 1
        try:
            await self._app(scope, receive, answered.send)
        finally:
            self._room += 1
            answered.log()
            answered.count()

    def _refusal(self, scope: Scope) -> Problem | None:
        if scope["path"] == "/live":  # alive, however busy
            return None
        if self._loopback_only and _host(scope) not in _LOOPBACK_HOSTS:
            return Problem(421, "misdirected", "without tokens this answers to a loopback name alone")
        if self._room <= 0:
            return Problem(503, "busy", "too many requests at once", retry_after_s=1)
        return None


class _Answered:
    """Adds our headers to the answer, and remembers what it was."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self._scope: MutableMapping[str, Any] = scope
        self._send = send
        self._status: int | None = None
        self._began = time.monotonic()

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            message["headers"] = [*message.get("headers", ()), *_HEADERS]
        await self._send(message)

    def count(self) -> None:
        """By the route's template, which the router leaves in the scope: a path holds ids, or what somebody made up."""
        route = getattr(self._scope.get("route"), "path_format", "none")
        status = str(self._status or "none")  # none: it went away before it was answered
        metrics.HTTP_SECONDS.labels(route, status).observe(time.monotonic() - self._began)

    def log(self) -> None:
        log.info(
            "door_answered",
            method=self._scope["method"],
            path=self._scope["path"],
            status=self._status,
            bearer=self._scope.get("state", {}).get("bearer"),
            elapsed_ms=round((time.monotonic() - self._began) * 1000, 1),
        )


def _host(scope: Scope) -> bytes:
    host = next((value for name, value in scope["headers"] if name == b"host"), b"")
    name, colon, port = host.rpartition(b":")
    return name.lower() if colon and port.isdigit() else host.lower()

"""Authenticates and authorises requests, and reads their bodies: the dependencies of the routes."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.requests import ClientDisconnect

from producer.serve.limits import RateLimits
from producer.serve.problems import Problem
from producer.serve.settings import ServeSettings
from producer.serve.tokens import ANYBODY, Bearer, Role, Tokens

_DISCARD_BYTES = 8_000_000  # what a client with a mistake sends; who sends more may miss why it was refused
_DISCARD_S = 2.0

_scheme = HTTPBearer(auto_error=False, description="A token that `vetline token` issued.")
_Credentials = Annotated[HTTPAuthorizationCredentials | None, Depends(_scheme)]


class Authorizer:
    """tokens: None lets anybody in; see `vetline serve --no-tokens`."""

    def __init__(self, tokens: Tokens | None, limits: RateLimits, settings: ServeSettings) -> None:
        self._tokens = tokens
        self._limits = limits
        self._settings = settings

    def admits(self, role: Role) -> Callable[..., Awaitable[Bearer]]:
        """A dependency that ends the request unless its token has this role, and pays for it from the token's rate."""

        async def admitted(request: Request, credentials: _Credentials) -> Bearer:
            bearer = self._bearer(credentials)
            request.state.bearer = bearer.name
            self._limits.requests.take(bearer.name)
            if not bearer.role.may(role):
                raise Problem(403, "forbidden", f"this takes a token with the role {role}, not {bearer.role}")
            return bearer

        return admitted

    async def body(self, request: Request) -> bytes:
        """The whole body, bounded in size and time. Raises Problem 408, 413 or 415."""
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise Problem(415, "unsupported_media_type", "send application/json")
        most = self._settings.max_body_bytes
        length = request.headers.get("content-length", "")
        if length.isdigit() and int(length) > most:
            await _discard(request)
            raise _too_large(most)
        try:
            async with asyncio.timeout(self._settings.body_timeout_s):
                return await _read(request, most)
        except TimeoutError:
            raise Problem(
                408, "body_too_slow", f"no whole body within {self._settings.body_timeout_s:g} s"
            ) from None
        except ClientDisconnect:
            raise Problem(400, "cut_short", "the connection ended within the body") from None

    def _bearer(self, credentials: HTTPAuthorizationCredentials | None) -> Bearer:
        if self._tokens is None:
            return ANYBODY
        bearer = self._tokens.bearer(credentials.credentials) if credentials else None
        if bearer is None:
            raise Problem(
                401,
                "unauthorized",
                "send a token: Authorization: Bearer ...",
                headers={"WWW-Authenticate": "Bearer"},
            )
        return bearer


async def _read(request: Request, most: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > most:
            await _discard(request)
            raise _too_large(most)
        parts.append(part)
    return b"".join(parts)


async def _discard(request: Request) -> None:
    """Read on and forget, for a while: whoever still sends when the connection closes loses the answer with it."""
    size = 0
    with suppress(TimeoutError, ClientDisconnect):
        async with asyncio.timeout(_DISCARD_S):
            async for part in request.stream():
                size += len(part)
                if size > _DISCARD_BYTES:
                    return


def _too_large(most: int) -> Problem:
    return Problem(413, "body_too_large", f"a body may have {most} bytes", headers={"Connection": "close"})

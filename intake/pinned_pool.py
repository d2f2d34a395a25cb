"""Kept connections to checked addresses, for many threads: what fetching and webhooks send their requests over."""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import certifi
import httpcore

from intake.addresses import AddressRules
from intake.budget import Budget
from intake.pinned import CurrentFetch, PinnedBackend
from intake.resolver import Resolve
from intake.settings import FetchSettings

# A connection that did not hold. Our own errors come beside them: see PinnedBackend.
BROKEN = (httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError, OSError)


class PinnedPool:
    """keepalive_s: how long an idle connection is kept."""

    def __init__(
        self,
        settings: FetchSettings,
        rules: AddressRules,
        resolve: Resolve,
        *,
        max_connections: int,
        keepalive_s: float,
    ) -> None:
        self._current = CurrentFetch()
        self._pool = httpcore.ConnectionPool(
            ssl_context=_trust(settings),
            max_connections=max_connections,
            keepalive_expiry=keepalive_s,
            network_backend=PinnedBackend(settings, rules, resolve, self._current),
        )

    @contextmanager
    def within(self, budget: Budget) -> Iterator[None]:
        """Inside, this thread's waits end with the budget, in TooSlow."""
        self._current.budget = budget
        try:
            yield
        finally:
            self._current.budget = None

    @contextmanager
    def response(self, request: httpcore.Request) -> Iterator[httpcore.Response]:
        """The answer, whose body is not read yet. Raises BROKEN, and what PinnedBackend raises."""
        response = self._send(request)
        try:
            self._current.answered = True
            yield response
        finally:
            with suppress(*BROKEN):
                response.close()

    def close(self) -> None:
        self._pool.close()

    def _send(self, request: httpcore.Request) -> httpcore.Response:
        """A kept connection may have been closed by its host at this very moment: then once more."""
        self._current.answered = self._current.connected = False
        try:
            return self._pool.handle_request(request)
        except (httpcore.RemoteProtocolError, httpcore.ReadError, httpcore.WriteError):
            if self._current.connected:
                raise
        return self._pool.handle_request(request)


def _trust(settings: FetchSettings) -> ssl.SSLContext:
    """The authorities of certifi, and the operator's own."""
    context = ssl.create_default_context(cafile=certifi.where())
    if settings.ca_file is not None:
        context.load_verify_locations(settings.ca_file)
    return context

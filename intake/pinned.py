"""The network backend of the HTTP client: connects to checked addresses only, and cuts waits to the budget."""

import socket
import ssl
import threading
from collections.abc import Iterable
from typing import Any

import httpcore

from intake.addresses import AddressRules
from intake.budget import Budget
from intake.resolver import Resolve
from intake.settings import FetchSettings
from intake.timed_stream import Late, TimedStream
from moderation.errors import HostUnavailable, TooSlow, UntrustedHost

_MAX_ADDRESSES = 3  # tried for one host, within one connect timeout


class CurrentFetch(threading.local):
    """The fetch that this thread is doing. Connections outlive the one that opened them, so waits ask here.

    answered: whether the response has begun. connected: whether its connection is a new one.
    """

    budget: Budget | None = None
    answered: bool = False
    connected: bool = False

    def left_s(self, at_most_s: float) -> float:
        return self.budget.left_s(at_most_s) if self.budget is not None else at_most_s


class PinnedBackend(httpcore.NetworkBackend):
    """Resolves a host once, checks all its addresses, and connects to one of those very addresses.

    The name stays what the Host header, SNI and the certificate are about. Nothing resolves it a second time.
    """

    def __init__(
        self, settings: FetchSettings, rules: AddressRules, resolve: Resolve, current: CurrentFetch
    ) -> None:
        self._settings = settings
        self._rules = rules
        self._resolve = resolve
        self._current = current
        self._sockets = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """Raises BlockedAddress, NotFound, HostUnavailable, TooSlow."""
        connect_s = self._settings.connect_timeout_s
        answers = self._resolve(host, port, self._current.left_s(connect_s))
        addresses = self._rules.check(host, port, answers)[:_MAX_ADDRESSES]
        options = [(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)]
        for address in addresses:
            try:
                stream = self._sockets.connect_tcp(
                    address,
                    port,
                    timeout=self._current.left_s(connect_s / len(addresses)),
                    socket_options=options,
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                continue
            self._current.connected = True
            return _BudgetedStream(stream, self._settings, self._current)
        raise HostUnavailable(f"{host} did not accept a connection")


class _BudgetedStream(TimedStream):
    """A socket none of whose waits outlasts the budget, or a silence that is too long."""

    def __init__(self, inner: httpcore.NetworkStream, settings: FetchSettings, current: CurrentFetch) -> None:
        super().__init__(inner)
        self._settings = settings
        self._current = current

    def wait_s(self, timeout: float | None, late: Late) -> float | None:
        connects = late is httpcore.ConnectTimeout
        at_most_s = self._settings.connect_timeout_s if connects else self._settings.first_byte_timeout_s
        return self._current.left_s(at_most_s)

    def over(self, inner: httpcore.NetworkStream) -> httpcore.NetworkStream:
        return _BudgetedStream(inner, self._settings, self._current)

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        silence_s = self._settings.first_byte_timeout_s
        try:
            return super().read(max_bytes, timeout)
        except httpcore.ReadTimeout:
            self._current.left_s(silence_s)  # the budget was what ended it
            if self._current.answered:
                raise TooSlow(f"the host fell silent for {silence_s:g} s") from None
            raise HostUnavailable(f"the host did not answer within {silence_s:g} s") from None

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        try:
            return super().start_tls(ssl_context, server_hostname, timeout)
        except httpcore.ConnectError as error:
            if isinstance(error.__context__, ssl.SSLCertVerificationError):
                raise UntrustedHost(f"the certificate of {server_hostname} does not hold") from None
            raise HostUnavailable(f"{server_hostname} broke off the TLS handshake") from None
        except httpcore.ConnectTimeout:
            raise HostUnavailable(f"{server_hostname} did not end the TLS handshake") from None

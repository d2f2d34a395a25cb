"""A socket under httpcore whose every wait is bounded by its owner's clock, rather than by httpcore's timeouts alone.

A read timeout does not bound a call: each byte that trickles in starts it anew.
"""

import ssl
from abc import ABC, abstractmethod
from typing import Any

import httpcore

_PIECE_BYTES = 256 * 1024  # written at once, so that a slow reader is noticed between pieces

Late = type[httpcore.TimeoutException]


class TimedStream(httpcore.NetworkStream, ABC):
    """inner: httpcore's own stream, or the one below TLS."""

    def __init__(self, inner: httpcore.NetworkStream) -> None:
        self._inner = inner

    @abstractmethod
    def wait_s(self, timeout: float | None, late: Late) -> float | None:
        """How long the next wait may take. timeout: httpcore's. late: ReadTimeout, WriteTimeout or ConnectTimeout."""

    @abstractmethod
    def over(self, inner: httpcore.NetworkStream) -> httpcore.NetworkStream:
        """A stream like this one over another, for TLS."""

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._inner.read(max_bytes, self.wait_s(timeout, httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        view = memoryview(buffer)
        for start in range(0, len(view), _PIECE_BYTES):
            piece = bytes(view[start : start + _PIECE_BYTES])
            self._inner.write(piece, self.wait_s(timeout, httpcore.WriteTimeout))

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        wait_s = self.wait_s(timeout, httpcore.ConnectTimeout)
        return self.over(self._inner.start_tls(ssl_context, server_hostname, wait_s))

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)

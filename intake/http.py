"""Fetches http and https: one GET and a few redirects, bounded against hostile hosts."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpcore

from intake.addresses import AddressRules
from intake.budget import Budget, Pace
from intake.codings import Body
from intake.picture import Fetched
from intake.pinned_pool import BROKEN, PinnedPool
from intake.resolver import Resolve
from intake.settings import FetchSettings
from intake.slots import Slots
from intake.web_uri import WebUri, host_header, parse_web_uri
from moderation.errors import (
    BlockedAddress,
    Forbidden,
    HostRefused,
    HostUnavailable,
    NotFound,
    RateLimited,
    TooLarge,
    VetlineError,
)

_FOUND = frozenset({200, 203})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_ABSENT = frozenset({404, 410})
_DENIED = frozenset({401, 402, 403, 407, 451})
_FOR_NOW = frozenset({408, 421, 425})
_MAX_RETRY_AFTER_S = 3600.0  # a host may ask for more; nobody waits longer for it
_KEEPALIVE_S = 15.0
_SHORT_BYTES = 16_384  # what browsers and proxies send as error pages

Headers = dict[bytes, bytes]


class HttpSource:
    """Fetches web URIs for many threads at once, over connections that are kept and reused."""

    def __init__(self, settings: FetchSettings, resolve: Resolve) -> None:
        self._settings = settings
        self._slots = Slots(
            total=settings.max_connections,
            per_host=settings.max_connections_per_host,
            wait_s=settings.slot_wait_s,
        )
        self._pool = PinnedPool(
            settings,
            AddressRules(settings.allow_hosts),
            resolve,
            max_connections=settings.max_connections,
            keepalive_s=_KEEPALIVE_S,
        )

    def fetch(self, uri: str) -> Fetched:
        """Raises what `Fetcher.fetch` names."""
        at = start = parse_web_uri(uri)
        budget = Budget(self._settings.total_timeout_s)
        with self._pool.within(budget):
            for _ in range(self._settings.max_redirects + 1):
                with self._slots.of(at.host, budget):
                    answer = self._get(at, start.authorization if at.origin == start.origin else None)
                if isinstance(answer, Fetched):
                    return answer
                at = _follow(at, answer)
        raise HostRefused(f"more than {self._settings.max_redirects} redirects")

    def close(self) -> None:
        self._pool.close()

    def _get(self, uri: WebUri, authorized: str | None) -> Fetched | str:
        """The body behind one URI, or the location that it redirects to."""
        with self._response(uri, authorized) as response:
            headers = {name.lower(): value for name, value in response.headers}
            if response.status not in _FOUND:
                self._drain(response, headers)
            if response.status in _REDIRECTS and b"location" in headers:
                return _location(headers[b"location"])
            _check_status(response.status, headers, uri.host)
            return Fetched(
                data=self._read(response, headers, uri.host),
                etag=_text(headers.get(b"etag")),
                declared_type=_text(headers.get(b"content-type")),
            )

    @contextmanager
    def _response(self, uri: WebUri, authorized: str | None) -> Iterator[httpcore.Response]:
        request = httpcore.Request(
            b"GET",
            httpcore.URL(scheme=uri.scheme, host=uri.host, port=uri.port, target=uri.target),
            headers=self._headers(uri, authorized),
            extensions={"timeout": {"pool": self._settings.slot_wait_s}},  # the other waits have the budget
        )
        try:
            with self._pool.response(request) as response:
                yield response
        except BROKEN:
            raise HostUnavailable(f"the connection to {uri.host} broke off") from None

    def _headers(self, uri: WebUri, authorized: str | None) -> list[tuple[bytes, bytes]]:
        headers = {
            "Host": host_header(uri),
            "User-Agent": self._settings.user_agent,
            "Accept": "*/*",
            "Accept-Encoding": "identity",  # what unpacks itself may become any size
        }
        if authorized is not None:
            headers["Authorization"] = authorized
        return [(name.encode("ascii"), value.encode("latin-1")) for name, value in headers.items()]

    def _drain(self, response: httpcore.Response, headers: Headers) -> None:
        """Read a short answer to its end, so that its connection can be used again."""
        if b"content-length" not in headers or _announced(headers) > _SHORT_BYTES:
            return
        with suppress(VetlineError, httpcore.NetworkError, httpcore.ProtocolError):
            for _ in response.iter_stream():
                pass

    def _read(self, response: httpcore.Response, headers: Headers, host: str) -> bytes:
        """The body, unpacked where the host packed it unasked. Both sizes are bounded."""
        limit = self._settings.max_bytes
        unpacked = Body(headers.get(b"content-encoding", b""), host=host, max_bytes=limit)
        if _announced(headers) > limit:
            raise TooLarge(f"announced more than {limit} bytes")
        pace = Pace(self._settings.min_rate_bytes_s, self._settings.min_rate_after_s)
        body = bytearray()
        received = 0
        for chunk in response.iter_stream():
            received += len(chunk)
            if received > limit:
                raise TooLarge(f"sent more than {limit} bytes")
            body += unpacked.take(chunk)
            pace.check(received)
        unpacked.finish()
        return bytes(body)


def _follow(at: WebUri, location: str) -> WebUri:
    to = at.join(location)
    if at.scheme == "https" and to.scheme != "https":
        raise BlockedAddress(f"{at.host} redirects from https to http")
    return to


def _location(value: bytes) -> str:
    """A redirect's target: ASCII by the standard, UTF-8 in practice."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _check_status(status: int, headers: Headers, host: str) -> None:
    if status in _FOUND:
        return
    if status == 429:
        raise RateLimited(f"{host} answered 429", retry_after_s=retry_after_s(headers))
    if status >= 500 or status in _FOR_NOW:
        raise HostUnavailable(f"{host} answered {status}", retry_after_s=retry_after_s(headers))
    if status in _ABSENT:
        raise NotFound(f"{host} answered {status}")
    if status in _DENIED:
        raise Forbidden(f"{host} answered {status}")
    raise HostRefused(f"{host} answered {status}")


def _announced(headers: Headers) -> int:
    length = headers.get(b"content-length", b"0")
    return int(length) if length.isdigit() else 0


def retry_after_s(headers: Headers) -> float | None:
    """Retry-After is seconds or a date."""
    value = _text(headers.get(b"retry-after"))
    if value is None:
        return None
    if value.isascii() and value.isdigit():
        return min(float(value), _MAX_RETRY_AFTER_S)
    try:
        seconds = (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds()
    except (ValueError, TypeError):
        return None
    return min(max(seconds, 0.0), _MAX_RETRY_AFTER_S)


def _text(value: bytes | None, max_length: int = 200) -> str | None:
    """A header's value as short printable text: it goes to the ledger."""
    if value is None:
        return None
    return "".join(letter for letter in value.decode("latin-1") if letter.isprintable())[:max_length]

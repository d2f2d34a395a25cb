"""An http or https URI, taken apart once and strictly: what is checked is what is connected to."""

import re
from base64 import b64encode
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

import httpx

from moderation.errors import InvalidUri

_PORTS = {"http": 80, "https": 443}
_NAME = re.compile(r"(?:[a-z0-9_](?:[a-z0-9_\-]{0,61}[a-z0-9_])?\.)*[a-z0-9_](?:[a-z0-9_\-]{0,61}[a-z0-9_])?")
_MAX_LENGTH = 8192  # characters; what a submission may hold


@dataclass(frozen=True, slots=True)
class WebUri:
    """host: lower case, ASCII, without brackets or a last dot. target: path and query as sent."""

    scheme: str
    host: str
    port: int
    target: bytes
    authorization: str | None = None  # from userinfo; for this origin only

    @property
    def origin(self) -> tuple[str, str, int]:
        return self.scheme, self.host, self.port

    def join(self, location: str) -> "WebUri":
        """Where a redirect leads. Raises InvalidUri; the caller judges scheme and address."""
        base = f"{self.scheme}://{_bracket(self.host)}:{self.port}{self.target.decode('ascii')}"
        _check_letters(location)
        try:
            joined = str(httpx.URL(base).join(location))
        except (httpx.InvalidURL, ValueError, UnicodeError):
            raise InvalidUri("a redirect leads to a location that is no URI") from None
        return parse_web_uri(joined)


def parse_web_uri(uri: str) -> WebUri:
    """Raises InvalidUri, whose text never holds the URI."""
    _check_letters(uri)
    try:
        url = httpx.URL(uri)
        host = url.raw_host.decode("ascii").lower()
        port = url.port
        target = url.raw_path
        username, password = url.username, url.password
    except (httpx.InvalidURL, ValueError, UnicodeError):  # from None: the cause quotes the URI
        raise InvalidUri("not a URI that can be read") from None
    if url.scheme not in _PORTS:
        raise InvalidUri("not an http or https URI")
    if not uri[len(url.scheme) :].startswith("://"):
        raise InvalidUri("a host is missing")
    return WebUri(
        scheme=url.scheme,
        host=_check_host(host),
        port=_check_port(port, url.scheme),
        target=target if target.startswith(b"/") else b"/" + target,
        authorization=_basic(username, password),
    )


def _check_letters(uri: str) -> None:
    """Refuse what one parser skips and another reads: control characters, backslashes, outer spaces."""
    if len(uri) > _MAX_LENGTH:
        raise InvalidUri(f"longer than {_MAX_LENGTH} characters")
    if uri != uri.strip() or "\\" in uri or not all(letter.isprintable() for letter in uri):
        raise InvalidUri("holds control characters, a backslash or spaces at its ends")


def _check_host(host: str) -> str:
    """A name, or an address in its one canonical form: not 127.1, 0x7f000001, 2130706433 or 0177.0.0.1."""
    host = host.removesuffix(".")
    if ":" in host:
        try:
            address = IPv6Address(host)
        except ValueError:
            raise InvalidUri("the host is no IPv6 address") from None
        if address.scope_id is not None:
            raise InvalidUri("the host is an IPv6 address with a zone")
        return str(address)
    if not host or len(host) > 253 or not _NAME.fullmatch(host):
        raise InvalidUri("the host is no name or address")
    if _ends_in_a_number(host):
        try:
            return str(IPv4Address(host))
        except ValueError:
            raise InvalidUri("the host is an IPv4 address in an unusual form") from None
    return host


def _ends_in_a_number(host: str) -> bool:
    """What resolvers and browsers read as an IPv4 address, however it is spelled."""
    last = host.rpartition(".")[2]
    return last.isdigit() or re.fullmatch(r"0x[0-9a-f]*", last) is not None


def _check_port(port: int | None, scheme: str) -> int:
    if port is None:
        return _PORTS[scheme]
    if not 0 < port < 65536:
        raise InvalidUri("the port is out of range")
    return port


def _basic(username: str, password: str) -> str | None:
    if not username and not password:
        return None
    return "Basic " + b64encode(f"{username}:{password}".encode()).decode("ascii")


def _bracket(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def host_header(uri: WebUri) -> str:
    """The Host header: the port only where it is not the scheme's own."""
    host = _bracket(uri.host)
    return host if uri.port == _PORTS[uri.scheme] else f"{host}:{uri.port}"

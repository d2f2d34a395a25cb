"""Which addresses images may be fetched from: public ones, and what the operator allowed by name or network.

Python's `is_global` is no gate: depending on its version it lets through NAT64 and 6to4 forms of
169.254.169.254, multicast, deprecated site-local and Azure's wire server. The lists below are the IANA
special-purpose registries (RFC 6890 and successors) with the metadata services of the large clouds.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from moderation.errors import BadSetting, BlockedAddress

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

WEB_PORTS = (80, 443)

# Opened by a host's name on the allow-list: where people's own object stores and CDNs live.
_PRIVATE: tuple[Network, ...] = tuple(
    ip_network(text)
    for text in (
        "10.0.0.0/8",
        "100.64.0.0/10",  # carrier-grade NAT, Tailscale, EKS pods
        "127.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "::1/128",
        "fc00::/7",
    )
)

# Inside the private networks, yet never opened by a name: they hand out the machine's credentials.
_METADATA: tuple[Network, ...] = tuple(
    ip_network(text)
    for text in (
        "100.100.100.200/32",  # Alibaba
        "fd00:ec2::/32",  # Amazon: 254 metadata, 253 DNS, 123 time
        "fd20:ce::254/128",  # Google
        "fd00:c1::a9fe:a9fe/128",  # Oracle
    )
)

# Opened only by an address or CIDR on the allow-list.
_SPECIAL: tuple[Network, ...] = tuple(
    ip_network(text)
    for text in (
        "0.0.0.0/8",
        "168.63.129.16/32",  # Azure's wire server, on a public address
        "169.254.0.0/16",  # link-local, and metadata nearly everywhere
        "192.0.0.0/24",  # protocol assignments; Oracle's metadata
        "192.0.2.0/24",
        "192.31.196.0/24",
        "192.52.193.0/24",
        "192.88.99.0/24",  # 6to4 relays
        "192.175.48.0/24",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
        # Within 2000::/3; all else of IPv6 is refused below.
        "2001::/23",  # Teredo, ORCHID, benchmarking
        "2001:db8::/32",
        "2002::/16",  # 6to4: an IPv4 address in disguise, long deprecated
        "2620:4f:8000::/48",
        "3fff::/20",
    )
)
_GLOBAL_UNICAST = IPv6Network("2000::/3")
_NAT64 = IPv6Network("64:ff9b::/96")  # how IPv6-only networks reach IPv4 hosts
_ISATAP = (0x00005EFE, 0x02005EFE)  # interface identifiers that hold an IPv4 address

_HOST = re.compile(r"[a-z0-9_](?:[a-z0-9_.\-]{0,252})")


@dataclass(frozen=True, slots=True)
class _Allowed:
    """One entry of the allow-list. port None: every port."""

    port: int | None
    name: str | None = None
    network: Network | None = None

    def admits(self, host: str, port: int, address: Address) -> bool:
        if self.port not in (None, port):
            return False
        if self.network is not None:
            return address in self.network
        return host == self.name and not _in_any(address, _METADATA + _SPECIAL) and not _is_odd(address)


class AddressRules:
    """Says which of a host's addresses may be connected to. Immutable, so shared by threads."""

    def __init__(self, allow_hosts: Iterable[str] = ()) -> None:
        """Raises BadSetting where an entry is neither host, host:port, address nor CIDR."""
        self._allowed = tuple(_parse(entry) for entry in allow_hosts)

    def check(self, host: str, port: int, answers: Sequence[str]) -> list[str]:
        """The answers to `host`, where every one of them may be connected to on `port`.

        One blocked answer blocks the host: which of them is used is otherwise the attacker's choice.
        Raises BlockedAddress.
        """
        for answer in answers:
            self._check_one(host, port, answer)
        return list(answers)

    def _check_one(self, host: str, port: int, answer: str) -> None:
        if "%" in answer:
            raise BlockedAddress(f"{host} is link-local")
        address = unwrap(ip_address(answer))
        if any(entry.admits(host, port, address) for entry in self._allowed):
            return
        if is_blocked(address):
            raise BlockedAddress(f"{host} is at an address that is not public and not allowed")
        if port not in WEB_PORTS:
            raise BlockedAddress(f"port {port} of {host} is not allowed")


def unwrap(address: Address) -> Address:
    """The IPv4 address inside an IPv4-mapped or NAT64 one, which is where packets to it go."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in _NAT64:
            return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address


def is_blocked(address: Address) -> bool:
    """Whether an unwrapped address is anything but public."""
    return _in_any(address, _PRIVATE + _METADATA + _SPECIAL) or _is_odd(address)


def _is_odd(address: Address) -> bool:
    """IPv6 outside global unicast and private space, or with an IPv4 address in its interface identifier."""
    if isinstance(address, IPv4Address):
        return False
    if (int(address) >> 32) & 0xFFFF_FFFF in _ISATAP:
        return True
    return address not in _GLOBAL_UNICAST and not _in_any(address, _PRIVATE)


def _in_any(address: Address, networks: tuple[Network, ...]) -> bool:
    return any(address in network for network in networks)


def _parse(entry: str) -> _Allowed:
    host, port = _split_port(entry.strip().lower())
    try:
        return _Allowed(port=port, network=ip_network(host))
    except ValueError:
        name = host.rstrip(".")
        if not _HOST.fullmatch(name) or name.replace(".", "").isdigit():
            raise BadSetting(
                f"VETLINE_FETCH_ALLOW_HOSTS: {entry!r} is no host, host:port, address or CIDR"
            ) from None
        return _Allowed(port=port, name=name)


def _split_port(entry: str) -> tuple[str, int | None]:
    """`host:9000`, `10.0.0.5:9000`, `[::1]:9000`, or without the port."""
    match = re.fullmatch(r"(?:\[([0-9a-f:.]+)\]|([^:\[\]]+))(?::(\d{1,5}))?", entry)
    if match is None:
        return entry, None  # a bare IPv6 address or network
    return match[1] or match[2], int(match[3]) if match[3] else None

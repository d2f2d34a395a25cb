"""Addresses that images must not be fetched from, in every disguise that we know of."""

import socket
import sys
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from intake.addresses import AddressRules, is_blocked, unwrap
from intake.fetch import Fetcher
from intake.settings import FetchSettings
from moderation.errors import BadSetting, BlockedAddress, HostUnavailable, InvalidUri, NotFound

FILES = Path(__file__).parent / "addresses"


def lines(name: str) -> list[str]:
    return (FILES / name).read_text(encoding="utf-8").splitlines()


BLOCKED = lines("blocked.txt")  # what a name may resolve to, and must not be connected to
PUBLIC = lines("public.txt")

# URIs whose host is an address in disguise, or a trick on whoever parses it. None may cause a connection.
TRICKS = [
    *lines("tricks.txt"),
    "http://127.0.0.1\r\nHost: images.example/",
    "http://127.0.0.1\t/",
    " http://127.0.0.1/",
    "http://127.0.0.1/\n",
    "http://127.0.0.1\x00.images.example/",
    "http://images.example\u2028@127.0.0.1/",
    "http://images\xad.127.0.0.1/",
    "http://127.0.0.1\u200b/",
    "",
]


class Connects:
    """Notes each address that this process connects to. An audit hook lasts, so there is one, switched on and off."""

    def __init__(self) -> None:
        self.on = False
        self.addresses: list[object] = []
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[object, ...]) -> None:
        if self.on and event == "socket.connect":
            self.addresses.append(arguments[1])


_connects = Connects()


@pytest.fixture
def connects() -> Iterator[Connects]:
    _connects.addresses.clear()
    _connects.on = True
    yield _connects
    _connects.on = False


@pytest.fixture(scope="module")
def fetcher() -> Iterator[Fetcher]:
    fetcher = Fetcher(FetchSettings(connect_timeout_s=2))
    yield fetcher
    fetcher.close()


def test_there_are_enough_tricks() -> None:
    assert len(set(TRICKS)) >= 60


@pytest.mark.parametrize("uri", TRICKS)
def test_no_trick_with_a_uri_connects_to_a_private_address(
    fetcher: Fetcher, connects: Connects, uri: str
) -> None:
    with pytest.raises((BlockedAddress, InvalidUri)) as caught:
        fetcher.fetch(uri)
    assert connects.addresses == []
    assert uri not in str(caught.value) or not uri


def test_a_connection_would_have_been_noticed(connects: Connects) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
        socket.create_connection(address).close()
    assert connects.addresses == [address]


@pytest.mark.parametrize("address", BLOCKED)
def test_a_name_that_resolves_to_anything_but_a_public_address_is_blocked(
    address: str, connects: Connects
) -> None:
    fetcher = Fetcher(FetchSettings(), resolve=lambda host, port, timeout_s: [address])
    with pytest.raises(BlockedAddress, match=r"images\.example"):
        fetcher.fetch("https://images.example/a.jpg")
    assert connects.addresses == []
    fetcher.close()


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_allowed(address: str) -> None:
    assert AddressRules().check("images.example", 443, [address]) == [address]


@given(st.ip_addresses(v=4))
def test_every_private_ipv4_address_is_blocked_in_every_wrapping(address: object) -> None:
    number = int(ip_address(str(address)))
    wrapped = [ip_address((0xFFFF << 32) | number), ip_address((0x0064FF9B << 96) | number)]
    assert {is_blocked(unwrap(one)) for one in wrapped} == {is_blocked(ip_address(number))}


@given(st.ip_addresses(v=4))
def test_nothing_that_python_calls_private_is_allowed(address: object) -> None:
    parsed = ip_address(str(address))
    if parsed.is_private or parsed.is_multicast or parsed.is_reserved or parsed.is_link_local:
        assert is_blocked(parsed)


def allowed(entries: tuple[str, ...], host: str, port: int, address: str) -> bool:
    try:
        AddressRules(entries).check(host, port, [address])
    except BlockedAddress:
        return False
    return True


def test_an_allowed_name_may_be_private_on_any_port() -> None:
    assert allowed(("minio.internal",), "minio.internal", 9000, "10.0.0.5")
    assert allowed(("MinIO.internal.",), "minio.internal", 80, "fd12::1")
    assert not allowed(("minio.internal",), "other.internal", 80, "10.0.0.5")


def test_an_allowed_name_and_port_opens_that_port_alone() -> None:
    assert allowed(("minio.internal:9000",), "minio.internal", 9000, "10.0.0.5")
    assert not allowed(("minio.internal:9000",), "minio.internal", 22, "10.0.0.5")
    assert not allowed(("minio.internal:9000",), "minio.internal", 80, "10.0.0.5")


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254",
        "100.100.100.200",
        "fd00:ec2::254",
        "168.63.129.16",
        "0.0.0.0",
        "fe80::1",
        "224.0.0.1",
    ],
)
def test_a_name_never_opens_the_metadata_of_a_cloud_but_a_network_does(address: str) -> None:
    assert not allowed(("minio.internal",), "minio.internal", 80, address)
    assert allowed((address,), "minio.internal", 80, address)


def test_an_allowed_network_opens_its_addresses_on_any_port() -> None:
    assert allowed(("10.1.0.0/16",), "x.example", 8080, "10.1.2.3")
    assert not allowed(("10.1.0.0/16",), "x.example", 8080, "10.2.2.3")
    assert not allowed(("10.1.0.0/16:9000",), "x.example", 8080, "10.1.2.3")
    assert allowed(("[fd12::1]:9000",), "x.example", 9000, "fd12::1")
    assert allowed(("fd12::/16",), "x.example", 9000, "fd12::7")


@pytest.mark.parametrize(
    "entry", ["http://minio/", "minio:port", "10.0.0.1/8", "a b", "*", "300.1.1.1", "[::1", ""]
)
def test_an_entry_that_cannot_be_read_is_a_bad_setting(entry: str) -> None:
    with pytest.raises(BadSetting, match="VETLINE_FETCH_ALLOW_HOSTS"):
        AddressRules((entry,))


def test_names_that_do_not_resolve_are_told_apart(fetcher: Fetcher) -> None:
    with pytest.raises((NotFound, HostUnavailable)):
        fetcher.fetch("http://no-such-host.invalid/")

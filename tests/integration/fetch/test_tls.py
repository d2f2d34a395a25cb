"""TLS is about the name that was asked for, and is never left for less."""

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme

from intake.fetch import Fetcher
from intake.settings import FetchSettings
from moderation.errors import (
    BlockedAddress,
    HostUnavailable,
    UntrustedHost,
)
from tests.support.fetching import LOOPBACK, QUICK, failing, resolving
from tests.support.image_host import ImageHost


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def served_by(authority: trustme.CA, *names: str, **options: datetime) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names, **options).configure_cert(context)
    return context


def over_tls(context: ssl.SSLContext, ca_file: Path | None, **settings: object) -> tuple[ImageHost, Fetcher]:
    resolve, _ = resolving(["127.0.0.1"])
    options = {"allow_hosts": LOOPBACK, "ca_file": ca_file, **QUICK, **settings}
    return ImageHost(b"over TLS", tls=context), Fetcher(FetchSettings(**options), resolve=resolve)


@pytest.fixture
def ca_file(authority: trustme.CA, tmp_path: Path) -> Path:
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(path)
    return path


def test_tls_is_about_the_name_though_the_address_is_connected_to(
    authority: trustme.CA, ca_file: Path
) -> None:
    host, fetcher = over_tls(served_by(authority, "images.example"), ca_file)
    with host:
        assert fetcher.fetch(host.uri(host="images.example")).data == b"over TLS"
        assert host.seen[0].server_name == "images.example"
        fetcher.close()


def test_a_certificate_of_another_name_is_refused(authority: trustme.CA, ca_file: Path) -> None:
    host, fetcher = over_tls(served_by(authority, "other.example"), ca_file)
    with host:
        assert isinstance(failing(fetcher, host.uri(host="images.example")), UntrustedHost)
        fetcher.close()


def test_a_certificate_of_an_unknown_authority_is_refused(authority: trustme.CA) -> None:
    host, fetcher = over_tls(served_by(authority, "images.example"), None)
    with host:
        assert isinstance(failing(fetcher, host.uri(host="images.example")), UntrustedHost)
        fetcher.close()


def test_a_certificate_that_ran_out_is_refused(authority: trustme.CA, ca_file: Path) -> None:
    past = datetime.now(UTC) - timedelta(days=1)
    context = served_by(authority, "images.example", not_after=past, not_before=past - timedelta(days=9))
    host, fetcher = over_tls(context, ca_file)
    with host:
        assert isinstance(failing(fetcher, host.uri(host="images.example")), UntrustedHost)
        fetcher.close()


def test_a_plain_server_on_a_tls_port_is_unavailable(host: ImageHost, fetcher: Fetcher) -> None:
    uri = host.uri("/not-http").replace("http:", "https:")
    assert isinstance(failing(fetcher, uri), HostUnavailable)


def test_https_is_never_left_for_http(authority: trustme.CA, ca_file: Path, host: ImageHost) -> None:
    secure, fetcher = over_tls(served_by(authority, "images.example"), ca_file)
    with secure:
        uri = secure.uri(f"/redirect?to={host.uri()}", host="images.example")
        caught = failing(fetcher, uri)
        assert isinstance(caught, BlockedAddress)
        assert "https to http" in str(caught)
        fetcher.close()
    assert host.seen == []

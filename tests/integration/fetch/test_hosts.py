"""The fetcher against a host that lies, stalls, floods and redirects: each ends with its own error, in time."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from intake.fetch import Fetcher
from intake.resolver import Resolver
from intake.settings import FetchSettings
from moderation.errors import (
    BlockedAddress,
    Forbidden,
    HostRefused,
    HostUnavailable,
    InvalidUri,
    NotFound,
    Permanent,
    RateLimited,
    TooLarge,
    TooSlow,
    Transient,
    VetlineError,
)
from tests.support.fetching import LIMIT_BYTES, LOOPBACK, failing, resolving
from tests.support.image_host import ImageHost
from tests.support.waiting import wait_for


def test_an_image_comes_with_what_its_host_said_of_it(host: ImageHost, fetcher: Fetcher) -> None:
    fetched = fetcher.fetch(host.uri())
    assert fetched.data == host.photograph
    assert (fetched.etag, fetched.declared_type) == ('"abc"', "image/jpeg")


def test_requests_carry_nothing_but_what_a_get_needs(host: ImageHost, fetcher: Fetcher) -> None:
    fetcher.fetch(host.uri("/photo.jpg?w=1&x=%2F"))
    assert host.seen[0].path == "/photo.jpg?w=1&x=%2F"
    assert host.seen[0].headers == {
        "host": f"127.0.0.1:{host.port}",
        "user-agent": "Vetline",
        "accept": "*/*",
        "accept-encoding": "identity",
    }


def test_connections_are_reused(host: ImageHost, fetcher: Fetcher) -> None:
    for _ in range(50):
        fetcher.fetch(host.uri())
    assert (len(host.seen), host.connections) == (50, 1)


def test_connections_are_reused_after_redirects_and_errors(host: ImageHost, fetcher: Fetcher) -> None:
    for _ in range(5):
        fetcher.fetch(host.uri("/redirect?to=/photo.jpg"))
        assert isinstance(failing(fetcher, host.uri("/status/404")), NotFound)
    assert (len(host.seen), host.connections) == (15, 1)


def test_a_redirect_may_name_its_target_in_utf_8(host: ImageHost, fetcher: Fetcher) -> None:
    host.tricks["to"] = lambda visit: visit.wire.sendall(
        "HTTP/1.1 302 Found\r\nLocation: /photo.jpg?ä\r\nContent-Length: 0\r\n\r\n".encode()
    )
    assert fetcher.fetch(host.uri("/to")).data == host.photograph
    assert host.seen[-1].path == "/photo.jpg?%C3%A4"


def test_a_kept_connection_that_its_host_closed_costs_no_failure(host: ImageHost, fetcher: Fetcher) -> None:
    for _ in range(20):
        assert fetcher.fetch(host.uri("/close-unasked")).data == host.photograph


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("/silent", HostUnavailable),
        ("/slow-status", TooSlow),
        ("/slow-body", TooSlow),
        ("/slow-chunks", TooSlow),
        ("/stops-midway", TooSlow),
        ("/endless", TooLarge),
        ("/endless-chunks", TooLarge),
        ("/endless-headers", HostUnavailable),
        ("/endless-line", HostUnavailable),
        ("/endless-continue", TooSlow),
        ("/announced?bytes=200001", TooLarge),
        ("/announced?bytes=99999999999999999999", TooLarge),
        ("/announced?bytes=999999999999999999999", HostUnavailable),
        ("/too-short", HostUnavailable),
        ("/cut-chunk", HostUnavailable),
        ("/bad-chunk", HostUnavailable),
        ("/negative-length", HostUnavailable),
        ("/two-lengths", HostUnavailable),
        ("/gzip", HostRefused),
        ("/gzip-twice", HostRefused),
        ("/gzip-transfer", HostUnavailable),
        ("/partial", HostRefused),
        ("/nothing", HostRefused),
        ("/switch", HostUnavailable),
        ("/not-http", HostUnavailable),
        ("/old", HostUnavailable),
        ("/closes", HostUnavailable),
        ("/resets", HostUnavailable),
        ("/resets-midway", HostUnavailable),
        ("/loop", HostRefused),
        ("/status/400", HostRefused),
        ("/status/401", Forbidden),
        ("/status/403", Forbidden),
        ("/status/404", NotFound),
        ("/status/408", HostUnavailable),
        ("/status/410", NotFound),
        ("/status/418", HostRefused),
        ("/status/429", RateLimited),
        ("/status/451", Forbidden),
        ("/status/500", HostUnavailable),
        ("/status/503", HostUnavailable),
        ("/status/300", HostRefused),
        ("/status/304", HostRefused),
    ],
)
def test_each_trick_of_a_host_ends_with_its_own_error(
    host: ImageHost, fetcher: Fetcher, path: str, error: type[VetlineError]
) -> None:
    caught = failing(fetcher, host.uri(path))
    assert type(caught) is error
    assert isinstance(caught, Permanent | Transient)
    assert fetcher.fetch(host.uri()).data == host.photograph, "the next fetch is none the worse for it"


def test_a_body_past_the_limit_is_not_read_to_its_end(host: ImageHost, fetcher: Fetcher) -> None:
    assert isinstance(failing(fetcher, host.uri("/endless")), TooLarge)
    assert host.sent_bytes < LIMIT_BYTES + 8_000_000  # what the buffers between the two took in


def test_a_body_longer_than_announced_is_cut_where_it_was_announced(
    host: ImageHost, fetcher: Fetcher
) -> None:
    assert fetcher.fetch(host.uri("/too-long")).data == b"\xff\xd8\xff"


def test_an_encoding_that_is_none_is_no_reason_to_refuse(host: ImageHost, fetcher: Fetcher) -> None:
    assert fetcher.fetch(host.uri("/mistaken-encoding")).data == b"\xff\xd8\xff"


def test_a_page_in_place_of_an_image_is_handed_on_for_the_decoder_to_refuse(
    host: ImageHost, fetcher: Fetcher
) -> None:
    assert fetcher.fetch(host.uri("/html")).data.startswith(b"<!doctype html>")


@pytest.mark.parametrize(
    ("after", "seconds"),
    [("17", 17), ("0", 0), ("999999", 3600), ("soon", None), ("-5", None), ("²", None)],
)
def test_retry_after_in_seconds_is_kept_within_reason(
    host: ImageHost, fetcher: Fetcher, after: str, seconds: float | None
) -> None:
    caught = failing(fetcher, host.uri(f"/status/429?after={after}"))
    assert isinstance(caught, RateLimited)
    assert caught.retry_after_s == seconds


def test_retry_after_as_a_date_is_kept(host: ImageHost, fetcher: Fetcher) -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True).replace(" ", "%20")
    caught = failing(fetcher, host.uri(f"/status/503?after={date}"))
    assert isinstance(caught, HostUnavailable)
    assert caught.retry_after_s == pytest.approx(90, abs=3)


def test_three_redirects_are_followed_and_a_fourth_is_not(host: ImageHost, fetcher: Fetcher) -> None:
    three = "/redirect?to=/redirect?to=/redirect?to=/photo.jpg"
    assert fetcher.fetch(host.uri(three)).data == host.photograph
    assert isinstance(failing(fetcher, host.uri("/redirect?to=" + three)), HostRefused)


@pytest.mark.parametrize(
    "to",
    [
        "http://127.0.0.2:{port}/photo.jpg",
        "//127.0.0.2:{port}/photo.jpg",
        "http://169.254.169.254/latest/meta-data/",
        "http://[::ffff:169.254.169.254]/",
        "http://0.0.0.0:{port}/",
        "http://10.0.0.1/",
        "http://[::1]:{port}/photo.jpg",
    ],
)
def test_a_redirect_into_the_private_network_is_blocked(host: ImageHost, fetcher: Fetcher, to: str) -> None:
    assert isinstance(failing(fetcher, host.uri("/redirect?to=" + to.format(port=host.port))), BlockedAddress)


@pytest.mark.parametrize(
    "to",
    ["file:///etc/passwd", "ftp://127.0.0.1/x", "gopher://127.0.0.1/", "data:image/png,x", "s3://a/b",
     "http://127.1/", "http://0x7f000001/", "http:\\\\127.0.0.1\\", "//a b/"],
)  # fmt: skip
def test_a_redirect_to_another_scheme_or_a_crooked_host_is_refused(
    host: ImageHost, fetcher: Fetcher, to: str
) -> None:
    assert isinstance(failing(fetcher, host.uri("/redirect?to=" + to.replace(" ", "%20"))), InvalidUri)


def test_a_password_is_sent_to_its_own_host_alone(host: ImageHost) -> None:
    with ImageHost(b"elsewhere") as other:
        fetcher = Fetcher(FetchSettings(allow_hosts=LOOPBACK))
        to = other.uri()
        uri = host.uri(f"/redirect?to={to}").replace("://", "://user:p%40ss@")
        assert fetcher.fetch(uri).data == b"elsewhere"
        fetcher.close()
        assert host.seen[0].headers["authorization"] == "Basic dXNlcjpwQHNz"
        assert "authorization" not in other.seen[0].headers


def test_a_host_gets_no_more_than_its_share_of_connections_while_others_are_served(host: ImageHost) -> None:
    resolve, _ = resolving(["127.0.0.1"])
    settings = FetchSettings(allow_hosts=LOOPBACK, max_connections_per_host=3, max_connections=8)
    fetcher = Fetcher(settings, resolve=resolve)
    with ThreadPoolExecutor(12) as threads:
        slow = [threads.submit(fetcher.fetch, host.uri("/held", host="slow.example")) for _ in range(9)]
        wait_for(lambda: host.most_at_once["held"] == 3)
        assert fetcher.fetch(host.uri(host="quick.example")).data == host.photograph
        host.released.set()
        assert {fetch.result(20).data for fetch in slow} == {host.photograph}
    assert host.most_at_once["held"] == 3
    fetcher.close()


def test_waiting_for_a_busy_host_ends_as_a_transient_error(host: ImageHost) -> None:
    settings = FetchSettings(allow_hosts=LOOPBACK, max_connections_per_host=1, slot_wait_s=0.2)
    fetcher = Fetcher(settings)
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(fetcher.fetch, host.uri("/held"))
        wait_for(lambda: host.most_at_once["held"] == 1)
        with pytest.raises(HostUnavailable, match="busy"):
            fetcher.fetch(host.uri("/held"))
        host.released.set()
        first.result(20)
    fetcher.close()


def test_many_threads_share_a_fetcher(host: ImageHost, fetcher: Fetcher) -> None:
    with ThreadPoolExecutor(64) as threads:
        bodies = list(threads.map(lambda _: fetcher.fetch(host.uri()).data, range(640)))
    assert bodies == [host.photograph] * 640
    assert host.connections <= 32


def test_a_name_that_changes_its_address_is_connected_to_where_it_was_checked(host: ImageHost) -> None:
    """Rebinding: the first answer is allowed, each later one is not. Nobody asks again."""
    resolve, asked = resolving(["127.0.0.1"], ["127.0.0.3"])
    fetcher = Fetcher(FetchSettings(allow_hosts=("127.0.0.1",)), resolve=resolve)
    assert fetcher.fetch(host.uri(host="images.example")).data == host.photograph
    assert asked == ["images.example"]
    assert host.seen[0].headers["host"] == f"images.example:{host.port}"
    fetcher.close()


@pytest.mark.parametrize(
    "answers",
    [
        ["93.184.216.34", "127.0.0.1"],
        ["127.0.0.1", "93.184.216.34"],
        ["2606:2800:220:1::1", "::1"],
        ["93.184.216.34", "::ffff:10.0.0.1"],
        ["64:ff9b::a9fe:a9fe"],
        ["fe80::1%lo"],
    ],
)
def test_one_blocked_address_among_a_names_answers_blocks_it(answers: list[str]) -> None:
    resolve, _ = resolving(answers)
    fetcher = Fetcher(FetchSettings(), resolve=resolve)
    with pytest.raises(BlockedAddress):
        fetcher.fetch("https://images.example/a.jpg")
    fetcher.close()


def test_the_next_address_is_tried_where_one_does_not_answer(host: ImageHost) -> None:
    resolve, _ = resolving(["127.0.0.9", "127.0.0.1"])
    fetcher = Fetcher(FetchSettings(allow_hosts=("127.0.0.0/8",)), resolve=resolve)
    assert fetcher.fetch(host.uri(host="images.example")).data == host.photograph
    fetcher.close()


def test_a_port_of_no_web_server_is_blocked_unless_its_host_is_allowed() -> None:
    resolve, _ = resolving(["93.184.216.34"])
    fetcher = Fetcher(FetchSettings(), resolve=resolve)
    with pytest.raises(BlockedAddress, match="port 22 of images"):
        fetcher.fetch("http://images.example:22/")
    fetcher.close()


def test_a_name_server_that_hangs_costs_no_more_than_the_connect_timeout() -> None:
    hang = threading.Event()
    resolver = Resolver(look_up=lambda host, port: [str(hang.wait(30))])
    fetcher = Fetcher(FetchSettings(connect_timeout_s=0.3), resolve=resolver.resolve)
    started = time.monotonic()
    with pytest.raises(HostUnavailable, match=r"did not resolve within"):
        fetcher.fetch("https://images.example/")
    assert time.monotonic() - started < 2
    hang.set()
    resolver.close()
    fetcher.close()


def test_a_proxy_in_the_environment_is_not_used(host: ImageHost, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    fetcher = Fetcher(FetchSettings(allow_hosts=LOOPBACK))
    assert fetcher.fetch(host.uri()).data == host.photograph
    fetcher.close()

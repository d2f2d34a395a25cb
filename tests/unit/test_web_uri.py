"""Web URIs: what is sent, and to whom."""

import pytest

from intake.web_uri import host_header, parse_web_uri
from moderation.errors import InvalidUri


@pytest.mark.parametrize(
    ("uri", "host", "port", "target"),
    [
        ("https://images.example/a.jpg", "images.example", 443, b"/a.jpg"),
        ("http://images.example", "images.example", 80, b"/"),
        ("HTTPS://Images.Example:8443/A.jpg", "images.example", 8443, b"/A.jpg"),
        ("https://images.example./a.jpg", "images.example", 443, b"/a.jpg"),
        ("https://images.example?w=1", "images.example", 443, b"/?w=1"),
        ("https://images.example/a.jpg#part", "images.example", 443, b"/a.jpg"),
        ("https://images.example/a b.jpg", "images.example", 443, b"/a%20b.jpg"),
        ("https://images.example/a%2Fb%20c?x=%2F", "images.example", 443, b"/a%2Fb%20c?x=%2F"),
        ("https://bücher.example/ä.jpg", "xn--bcher-kva.example", 443, b"/%C3%A4.jpg"),
        ("https://my_bucket.s3.example/x", "my_bucket.s3.example", 443, b"/x"),
        ("http://8.8.8.8/x", "8.8.8.8", 80, b"/x"),
        ("http://[2606:4700::1111]:8080/x", "2606:4700::1111", 8080, b"/x"),
        ("http://[2606:4700:0:0::1111]/x", "2606:4700::1111", 80, b"/x"),
        ("https://images.example//a//b", "images.example", 443, b"//a//b"),
    ],
)
def test_a_uri_is_taken_apart(uri: str, host: str, port: int, target: bytes) -> None:
    parsed = parse_web_uri(uri)
    assert (parsed.host, parsed.port, parsed.target) == (host, port, target)


@pytest.mark.parametrize(
    ("uri", "header"),
    [
        ("https://images.example:443/", "images.example"),
        ("http://images.example:443/", "images.example:443"),
        ("http://[2606:4700::1]/", "[2606:4700::1]"),
        ("http://[2606:4700::1]:81/", "[2606:4700::1]:81"),
    ],
)
def test_the_host_header_holds_an_unusual_port_only(uri: str, header: str) -> None:
    assert host_header(parse_web_uri(uri)) == header


def test_userinfo_becomes_a_header_and_stays_out_of_the_target() -> None:
    parsed = parse_web_uri("https://user:p%40ss@images.example/a.jpg")
    assert parsed.authorization == "Basic dXNlcjpwQHNz"
    assert b"p" not in parsed.target.replace(b".jpg", b"")


@pytest.mark.parametrize(
    ("location", "host", "target"),
    [
        ("/b.jpg", "images.example", b"/b.jpg"),
        ("b.jpg?x=1", "images.example", b"/dir/b.jpg?x=1"),
        ("../b.jpg", "images.example", b"/b.jpg"),
        ("//cdn.example/b.jpg", "cdn.example", b"/b.jpg"),
        ("http://cdn.example:8080/b.jpg", "cdn.example", b"/b.jpg"),
        ("?w=2", "images.example", b"/dir/a.jpg?w=2"),
    ],
)
def test_a_redirect_is_joined_to_where_it_came_from(location: str, host: str, target: bytes) -> None:
    joined = parse_web_uri("https://images.example/dir/a.jpg").join(location)
    assert (joined.host, joined.target) == (host, target)


@pytest.mark.parametrize("uri", ["https://images.example/" + "a" * 8200, "https://" + "a" * 64 + ".example/"])
def test_what_is_too_long_is_refused(uri: str) -> None:
    with pytest.raises(InvalidUri):
        parse_web_uri(uri)

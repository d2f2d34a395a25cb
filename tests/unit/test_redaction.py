"""A secret in a URI does not survive redaction; what tells images apart does."""

import random
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moderation.redaction import redact_event, redact_text, redact_uri
from tests.support.secrets_in_uris import hidden

CANARY = "c4n4ryS3cretDoNotLeakX9"


@pytest.mark.parametrize(
    ("uri", "redacted"),
    [
        ("https://images.example/a/b.jpg", "https://images.example/a/b.jpg"),
        ("https://images.example:8443/", "https://images.example:8443/"),
        ("HTTPS://Images.Example/A.jpg", "https://Images.Example/A.jpg"),
        ("https://user:pass@images.example/a.jpg", "https://images.example/a.jpg"),
        ("https://token@images.example/a.jpg", "https://images.example/a.jpg"),
        ("https://a@b@images.example/a.jpg", "https://images.example/a.jpg"),
        ("https://[2606:4700::1]:80/a.jpg", "https://[2606:4700::1]:80/a.jpg"),
        ("https://images.example/a.jpg#token", "https://images.example/a.jpg"),
        ("https://images.example/a.jpg?w=640&h=480", "https://images.example/a.jpg?w=640&h=480"),
        ("https://images.example/a.jpg?w=640&sig=abc", "https://images.example/a.jpg?w=640&…"),
        ("https://images.example/a.jpg?X-Amz-Signature=abc", "https://images.example/a.jpg?…"),
        ("https://images.example/a.jpg?secret", "https://images.example/a.jpg?…"),
        ("https://images.example/a.jpg?w=0a1b2c3d4e5f", "https://images.example/a.jpg?…"),
        (
            "https://images.example/0b5fa1c2-96e6-4f5e-8f70-2a4b51d24a35.jpg",
            "https://images.example/0b5fa1c2-96e6-4f5e-8f70-2a4b51d24a35.jpg",
        ),
        ("https://images.example/" + "3f" * 32 + ".png", "https://images.example/" + "3f" * 32 + ".png"),
        (
            "https://images.example/2024-05-18-the-quick-brown-fox-at-the-lake.jpg",
            "https://images.example/2024-05-18-the-quick-brown-fox-at-the-lake.jpg",
        ),
        ("https://images.example/@user/image@2x.png", "https://images.example/@user/image@2x.png"),
        (
            "https://api.telegram.example/file/bot123456789:AAHk3jf83jHJHk3jh4kjh3kjh4KJHKJ/photos/1.jpg",
            "https://api.telegram.example/file/…/photos/1.jpg",
        ),
        (
            "https://images.example/eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.x_y-z/1.jpg",
            "https://images.example/…/1.jpg",
        ),
        ("https://images.example/s3cr3tT0kenWithManyKinds0fLetters/1.jpg", "https://images.example/…/1.jpg"),
        ("https://images.example/token=abc/1.jpg", "https://images.example/token=…/1.jpg"),
        ("https://images.example/a.jpg;jsessionid=abc", "https://images.example/a.jpg;jsessionid=…"),
        (
            "https://proxy.example/x/https://user:pw@h.example/a.jpg?sig=1",
            "https://proxy.example/x/https://…/a.jpg?…",
        ),
        ("https://proxy.example/x%3Fsig%3Dabc", "https://proxy.example/x…"),
        ("s3://bucket/a/b c#1.jpg", "s3://bucket/a/b…c#1.jpg"),
        (
            "s3://bucket/key.jpg?versionId=3HL4kqtJvjVBH40Nrjfkd",
            "s3://bucket/key.jpg?versionId=3HL4kqtJvjVBH40Nrjfkd",
        ),
        ("file:///data/pictures/a.jpg", "file:///data/pictures/a.jpg"),
        ("data:image/png;base64,iVBORw0KGgo=", "data:image/png,…(29 characters)"),
        ("data:,secret", "data:,…(7 characters)"),
        ("https:\\\\user:pw@images.example\\a", "https:…"),
        ("https:/images.example/a", "https:…"),
        ("https://user:pa/ss@images.example/a.jpg", "https://…"),
        ("https://user:12/34@images.example/a.jpg", "https://user:12/…"),
        ("https://us er@images.example/", "https://images.example/"),
        ("ftp://user:pw@host/", "ftp:…"),
        ("javascript:alert(1)", "…"),
        ("user:password@host/a.jpg", "…"),
        ("password", "…"),
        ("", "…"),
        ("https://images.example/a\nb.jpg", "https://images.example/a…b.jpg"),
    ],
)
def test_a_uri_keeps_what_names_it_and_loses_what_opens_it(uri: str, redacted: str) -> None:
    assert redact_uri(uri) == redacted


def test_a_long_uri_is_cut() -> None:
    assert len(redact_uri("https://images.example/" + "a/" * 4000)) == 512


@pytest.mark.parametrize("uri", [*hidden(CANARY)])
def test_a_secret_is_gone_wherever_it_was(uri: str) -> None:
    assert CANARY not in redact_uri(uri)
    assert CANARY not in redact_text(f"cannot fetch {uri}, sorry") or "://" not in uri


@given(st.text(max_size=200))
def test_redaction_takes_any_text_and_is_done_once(text: str) -> None:
    once = redact_uri(text)
    assert once.isprintable()
    assert len(once) <= 512
    assert redact_uri(once) in (once, "…")
    assert redact_text(redact_text(text)) == redact_text(text)


@pytest.mark.parametrize("uri", ["data:image/png;base64,iVBORw0KGgo=", "data:,secret"])
def test_a_data_uri_that_is_redacted_stays_as_it_is(uri: str) -> None:
    once = redact_uri(uri)
    assert redact_uri(once) == once
    assert redact_text(f"{{'uri': '{once}'}}") == f"{{'uri': '{once}'}}"


@given(st.text(string.printable, max_size=80), st.sampled_from(["https://", "http://", "s3://", "file://"]))
def test_a_password_before_an_at_is_gone_whatever_is_around_it(text: str, scheme: str) -> None:
    chance = random.Random(text)
    password = "".join(chance.choices(string.ascii_letters + string.digits, k=30))
    assert password not in redact_uri(f"{scheme}user:{password}@host.example/{text}".replace("\\", "/"))


def test_uris_inside_a_text_are_redacted_and_the_text_is_not() -> None:
    text = "GET https://u:p@h.example/a.jpg?sig=x failed: see s3://b/k.jpg and http://[::1]/?t=1."
    assert redact_text(text) == "GET https://h.example/a.jpg?… failed: see s3://b/k.jpg and http://[::1]/?…"


def test_an_event_is_redacted_in_all_its_strings() -> None:
    event = {
        "event": "fetch_failed",
        "uri": "https://u:p@h.example/?x",
        "count": 3,
        "error": "at https://t@h.example/",
    }
    assert redact_event(None, "info", event) == {
        "event": "fetch_failed",
        "uri": "https://h.example/?…",
        "count": 3,
        "error": "at https://h.example/",
    }

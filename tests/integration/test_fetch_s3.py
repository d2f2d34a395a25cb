"""Objects from S3: what is allowed, what the credentials may read, and how large it may be."""

import json
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from intake.fetch import Fetcher
from intake.settings import FetchSettings, S3Settings
from moderation.errors import (
    BadSetting,
    Forbidden,
    HostUnavailable,
    InvalidUri,
    NotFound,
    RateLimited,
    TooLarge,
    TooSlow,
    VetlineError,
)
from tests.support.image_host import ImageHost, Visit

PHOTOGRAPH = bytes(range(256)) * 300
READ_PHOTOS = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Action": ["s3:GetObject", "s3:GetObjectVersion"],
            "Resource": "arn:aws:s3:::photos/*",
        }
    ],
}


@dataclass(frozen=True)
class Keys:
    """The credentials of one user."""

    key: str
    secret: str

    def use(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", self.key)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", self.secret)
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@dataclass(frozen=True)
class Store:
    """A server with rights: `reader` may read the bucket photos, `stranger` nothing."""

    endpoint: str
    version: str  # the first of two versions of photos/versioned.jpg
    reader: Keys
    stranger: Keys


@pytest.fixture(scope="module")
def store() -> Iterator[Store]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    try:
        version = _fill(endpoint)
        keys = _make_user(endpoint, "reader", READ_PHOTOS), _make_user(endpoint, "stranger", None)
        _enforce_rights(endpoint, after_requests="0")
        yield Store(endpoint, version, *keys)
        _enforce_rights(endpoint, after_requests="inf")
    finally:
        server.stop()


def _client(service: str, endpoint: str) -> Any:
    return boto3.client(
        service,
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id="admin",
        aws_secret_access_key="admin",
    )


def _fill(endpoint: str) -> str:
    s3 = _client("s3", endpoint)
    for bucket in ("photos", "private"):
        s3.create_bucket(Bucket=bucket)
        s3.put_object(Bucket=bucket, Key="cats/1.jpg", Body=PHOTOGRAPH, ContentType="image/jpeg")
    s3.put_object(Bucket="photos", Key="dogs/a b%20+é.jpg", Body=b"dog")
    s3.put_object(Bucket="photos", Key="empty.jpg", Body=b"")
    s3.put_object(Bucket="photos", Key="exact.jpg", Body=bytes(100_000))
    s3.put_object(Bucket="photos", Key="large.jpg", Body=bytes(100_001))
    s3.put_bucket_versioning(Bucket="photos", VersioningConfiguration={"Status": "Enabled"})
    first = s3.put_object(Bucket="photos", Key="versioned.jpg", Body=b"first")
    s3.put_object(Bucket="photos", Key="versioned.jpg", Body=b"second")
    s3.close()
    return str(first["VersionId"])


def _make_user(endpoint: str, name: str, policy: dict[str, Any] | None) -> Keys:
    iam = _client("iam", endpoint)
    iam.create_user(UserName=name)
    if policy is not None:
        iam.put_user_policy(UserName=name, PolicyName="read", PolicyDocument=json.dumps(policy))
    made = iam.create_access_key(UserName=name)["AccessKey"]
    iam.close()
    return Keys(made["AccessKeyId"], made["SecretAccessKey"])


def _enforce_rights(endpoint: str, after_requests: str) -> None:
    """From the given number of requests on; the server's setting is one of this whole process."""
    url, headers = f"{endpoint}/moto-api/reset-auth", {"Content-Type": "text/plain"}
    request = urllib.request.Request(url, data=after_requests.encode(), headers=headers, method="POST")
    urllib.request.urlopen(request).close()


@pytest.fixture
def fetcher(store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fetcher]:
    """As the reader, with both buckets allowed."""
    store.reader.use(monkeypatch)
    fetcher = reading(store, "photos", "private")
    yield fetcher
    fetcher.close()


def reading(store: Store, *buckets: str) -> Fetcher:
    settings = S3Settings(buckets=buckets, endpoint_url=store.endpoint)
    return Fetcher(FetchSettings(max_bytes=100_000), s3=settings)


def refused(fetcher: Fetcher, uri: str) -> type[VetlineError]:
    with pytest.raises(VetlineError) as caught:
        fetcher.fetch(uri)
    assert uri not in str(caught.value)
    return type(caught.value)


def test_an_object_comes_with_its_etag_and_version(fetcher: Fetcher) -> None:
    fetched = fetcher.fetch("s3://photos/cats/1.jpg")
    assert fetched.data == PHOTOGRAPH
    assert fetched.declared_type == "image/jpeg"
    assert fetched.etag is not None
    assert fetched.etag.startswith('"')
    latest = fetcher.fetch("s3://photos/versioned.jpg")
    assert (latest.data, bool(latest.version)) == (b"second", True)


def test_a_version_can_be_named(fetcher: Fetcher, store: Store) -> None:
    fetched = fetcher.fetch(f"s3://photos/versioned.jpg?versionId={store.version}")
    assert (fetched.data, fetched.version) == (b"first", store.version)


def test_a_key_is_taken_as_it_stands(fetcher: Fetcher) -> None:
    assert fetcher.fetch("s3://photos/dogs/a b%20+é.jpg").data == b"dog"


def test_an_object_at_the_limit_is_read_and_one_past_it_is_not(fetcher: Fetcher) -> None:
    assert len(fetcher.fetch("s3://photos/exact.jpg").data) == 100_000
    assert refused(fetcher, "s3://photos/large.jpg") is TooLarge


def test_an_empty_object_is_no_bytes(fetcher: Fetcher) -> None:
    assert fetcher.fetch("s3://photos/empty.jpg").data == b""


def test_what_is_absent_is_not_found(fetcher: Fetcher) -> None:
    assert refused(fetcher, "s3://photos/none.jpg") in (NotFound, Forbidden)  # without ListBucket S3 says 403


def test_what_the_credentials_may_not_read_is_forbidden(fetcher: Fetcher) -> None:
    assert refused(fetcher, "s3://private/cats/1.jpg") is Forbidden


def test_a_stranger_is_forbidden_everything(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.stranger.use(monkeypatch)
    fetcher = reading(store, "*")
    assert refused(fetcher, "s3://photos/cats/1.jpg") is Forbidden
    fetcher.close()


def test_wrong_credentials_are_forbidden(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    Keys(store.reader.key, "wrong").use(monkeypatch)
    fetcher = reading(store, "photos")
    assert refused(fetcher, "s3://photos/cats/1.jpg") is Forbidden
    fetcher.close()


def test_no_credentials_are_forbidden(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    fetcher = reading(store, "photos")
    assert refused(fetcher, "s3://photos/cats/1.jpg") is Forbidden
    fetcher.close()


@pytest.mark.parametrize(
    ("allowed", "uri", "reads"),
    [
        ((), "s3://photos/cats/1.jpg", False),
        (("photos",), "s3://photos/cats/1.jpg", True),
        (("other",), "s3://photos/cats/1.jpg", False),
        (("photos/cats/",), "s3://photos/cats/1.jpg", True),
        (("s3://photos/cats/",), "s3://photos/cats/1.jpg", True),
        (("photos/dogs/",), "s3://photos/cats/1.jpg", False),
        (("photos/dogs/", "photos/cats/"), "s3://photos/cats/1.jpg", True),
        (("*",), "s3://photos/cats/1.jpg", True),
    ],
)
def test_only_listed_buckets_and_prefixes_are_read(
    store: Store, monkeypatch: pytest.MonkeyPatch, allowed: tuple[str, ...], uri: str, reads: bool
) -> None:
    store.reader.use(monkeypatch)
    fetcher = reading(store, *allowed)
    if reads:
        assert fetcher.fetch(uri).data == PHOTOGRAPH
    else:
        assert refused(fetcher, uri) is Forbidden
    fetcher.close()


@pytest.mark.parametrize(
    "uri",
    [
        "s3://photos",
        "s3://photos/",
        "s3:///cats/1.jpg",
        "s3://Photos/cats/1.jpg",
        "s3://user:pw@photos/cats/1.jpg",
        "s3://photos:443/cats/1.jpg",
        "s3://arn:aws:s3:us-east-1:123456789012:accesspoint/x/y",
        "s3://photos/dogs/../cats/1.jpg",
        "s3://photos/./cats/1.jpg",
        "s3://../photos/1.jpg",
        "s3://photos/cats/1.jpg\n",
        "s3://photos/" + "x" * 1025,
    ],
)
def test_what_names_no_object_is_refused_before_anything_is_sent(fetcher: Fetcher, uri: str) -> None:
    assert refused(fetcher, uri) is InvalidUri


@pytest.mark.parametrize("entry", ["Photos", "photos*", "a", "https://photos"])
def test_an_entry_that_is_no_bucket_is_a_bad_setting(entry: str) -> None:
    with pytest.raises(BadSetting, match="VETLINE_S3_BUCKETS"):
        Fetcher(FetchSettings(), s3=S3Settings(buckets=(entry,)))


def _error(status: int, code: str) -> bytes:
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>m</Message></Error>".encode()
    return f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def _drip(visit: Visit) -> None:
    visit.say("HTTP/1.1 206 Partial Content", "Content-Length: 50000")
    visit.drip(bytes(50_000))


@pytest.mark.parametrize(
    ("trick", "error"),
    [
        (lambda visit: visit.wire.sendall(_error(503, "SlowDown")), RateLimited),
        (lambda visit: visit.wire.sendall(_error(500, "InternalError")), HostUnavailable),
        (lambda visit: visit.wire.sendall(_error(404, "NoSuchBucket")), NotFound),
        (lambda visit: visit.wire.sendall(_error(404, "NoSuchKey")), NotFound),
        (lambda visit: visit.wire.sendall(_error(403, "AccessDenied")), Forbidden),
        (lambda visit: visit.reset(), HostUnavailable),
        (lambda visit: visit.hold(), HostUnavailable),
        (lambda visit: visit.wire.sendall(b"not http at all\r\n\r\n"), HostUnavailable),
        (_drip, TooSlow),
    ],
)
def test_a_store_that_fails_ends_with_its_own_error(
    monkeypatch: pytest.MonkeyPatch, trick: Any, error: type[VetlineError]
) -> None:
    Keys("a", "b").use(monkeypatch)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with ImageHost() as host:
        host.tricks["photos"] = trick
        settings = S3Settings(buckets=("photos",), endpoint_url=host.uri(""))
        limits = FetchSettings(total_timeout_s=2, first_byte_timeout_s=1, min_rate_after_s=1)
        fetcher = Fetcher(limits, s3=settings)
        assert refused(fetcher, "s3://photos/cats/1.jpg") is error
        fetcher.close()

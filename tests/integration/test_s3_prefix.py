"""Listing s3://bucket/prefix/ from a real S3 protocol server: pages, cursors, refusals."""

from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from moto.s3.models import s3_backends
from moto.server import ThreadedMotoServer

from moderation.errors import BadSetting, BadSource, SourceUnavailable
from producer.sources import Item, SourceOptions, open_source

COUNT = 1_150  # a listing's page has 1,000
_ACCOUNT = "123456789012"  # moto's


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        url = f"http://{host}:{port}"
        boto3.client(
            "s3", endpoint_url=url, region_name="us-east-1", aws_access_key_id="k", aws_secret_access_key="s"
        ).create_bucket(Bucket="crawl")
        backend = s3_backends[_ACCOUNT]["aws"]
        for n in range(COUNT):
            backend.put_object("crawl", f"in/{n % 7}/{n:05} é.jpg", b"x")
        for name in ("in/readme.md", "in/", "out/1.jpg"):
            backend.put_object("crawl", name, b"x")
        yield url
    finally:
        server.stop()


@pytest.fixture(autouse=True)
def credentials(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    named = {"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s", "AWS_DEFAULT_REGION": "us-east-1"}
    for name, value in (named | {"AWS_ENDPOINT_URL": endpoint}).items():
        monkeypatch.setenv(name, value)


def test_a_prefix_is_listed_over_its_pages_and_goes_on_behind_any_cursor() -> None:
    source = open_source("s3://crawl/in/", SourceOptions())
    whole = list(source.read())
    items = [step.what for step in whole]
    assert len({item.uri for item in items if isinstance(item, Item)}) == COUNT
    assert items[0] == Item("s3://crawl/in/0/00000 é.jpg", items[0].key)  # type: ignore[union-attr]
    for number in (1, 999, 1000, 1001, COUNT):
        assert [step.what for step in source.read(whole[number - 1].cursor)] == items[number:]


def test_a_prefix_is_read_by_pattern() -> None:
    found = list(open_source("s3://crawl/in/", SourceOptions(patterns=("3/*",))).read())
    assert len(found) == len(range(3, COUNT, 7))


@pytest.mark.parametrize(
    ("place", "said"), [("s3://crawl/none/", "no images below"), ("s3://no-such-bucket", "NoSuchBucket")]
)
def test_what_cannot_be_listed_is_one_clear_line(place: str, said: str) -> None:
    with pytest.raises(BadSource, match=said):
        list(open_source(place, SourceOptions()).read())


def test_a_store_that_does_not_answer_is_a_service_that_is_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(SourceUnavailable):
        list(open_source("s3://crawl/in/", SourceOptions()).read())


@pytest.mark.parametrize(
    ("removed", "given"),
    [
        (("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), {}),
        (("AWS_SECRET_ACCESS_KEY",), {}),
        ((), {"AWS_PROFILE": "no-such"}),
    ],
)
def test_credentials_that_are_not_there_are_a_setting_and_no_service_that_is_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, removed: tuple[str, ...], given: dict[str, str]
) -> None:
    nothing = {name: str(tmp_path / "none") for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE")}
    for name, value in (nothing | {"AWS_EC2_METADATA_DISABLED": "true"} | given).items():
        monkeypatch.setenv(name, value)
    for name in removed:
        monkeypatch.delenv(name)
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)  # which remembers the credentials of the tests before
    with pytest.raises(BadSetting, match="AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"):
        list(open_source("s3://crawl/in/", SourceOptions()).read())

"""Settings of the image side, as an environment gives them."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from intake.settings import DecodeSettings, FetchSettings, S3Settings


def test_lists_are_written_with_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VETLINE_FETCH_ALLOW_HOSTS", "minio.internal:9000, 10.1.0.0/16,")
    monkeypatch.setenv("VETLINE_FETCH_FILE_ROOTS", "/data/one,/data/two")
    monkeypatch.setenv("VETLINE_S3_BUCKETS", "uploads, crawl/2024/")
    fetch = FetchSettings()
    assert fetch.allow_hosts == ("minio.internal:9000", "10.1.0.0/16")
    assert fetch.file_roots == (Path("/data/one"), Path("/data/two"))
    assert S3Settings().buckets == ("uploads", "crawl/2024/")


def test_nothing_private_is_open_unless_it_is_said() -> None:
    assert (FetchSettings().allow_hosts, FetchSettings().file_roots, S3Settings().buckets) == ((), (), ())


def test_a_limit_that_limits_nothing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VETLINE_DECODE_MAX_PIXELS", "0")
    with pytest.raises(ValidationError):
        DecodeSettings()


def test_there_are_as_many_children_as_cores() -> None:
    assert DecodeSettings().children >= 1

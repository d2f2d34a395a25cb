"""A host of images that plays tricks, and a fetcher that may reach it."""

import random
from collections.abc import Iterator

import pytest

from intake.fetch import Fetcher
from intake.settings import FetchSettings
from tests.support.fetching import LOOPBACK, QUICK
from tests.support.image_host import ImageHost


@pytest.fixture
def host() -> Iterator[ImageHost]:
    with ImageHost(random.Random(1).randbytes(50_000)) as host:
        yield host


@pytest.fixture
def fetcher() -> Iterator[Fetcher]:
    fetcher = Fetcher(FetchSettings(allow_hosts=LOOPBACK, **QUICK))
    yield fetcher
    fetcher.close()

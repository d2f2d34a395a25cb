"""Fixtures around the ledger."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine

from moderation.ledger.engine import open_ledger, ping
from moderation.ledger.policies import seed_builtin
from moderation.settings import LedgerSettings
from tests.support.proxy import Proxy, through_proxy


@pytest.fixture
def ledger(postgres_url: str) -> Iterator[Engine]:
    """A migrated ledger of this test's own, with the built-in policies."""
    engine = open_ledger(postgres_url)
    seed_builtin(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def cut_off(postgres_url: str) -> Iterator[tuple[Proxy, Engine]]:
    """The ledger through a proxy, on one connection that stands, so that a cut hits what the test does."""
    with through_proxy(postgres_url) as (proxy, url):
        engine = open_ledger(url, LedgerSettings(pool_size=1))
        ping(engine)
        yield proxy, engine
        engine.dispose()


@pytest.fixture
def proxy(cut_off: tuple[Proxy, Engine]) -> Proxy:
    return cut_off[0]


@pytest.fixture
def far(cut_off: tuple[Proxy, Engine]) -> Engine:
    return cut_off[1]

"""Fixtures around the ledger."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine

from moderation.ledger.engine import open_ledger
from moderation.ledger.policies import seed_builtin


@pytest.fixture
def ledger(postgres_url: str) -> Iterator[Engine]:
    """A migrated ledger of this test's own, with the built-in policies."""
    engine = open_ledger(postgres_url)
    seed_builtin(engine)
    yield engine
    engine.dispose()

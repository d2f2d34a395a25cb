"""A ledger that has seen all kinds of work, and one assessment of each sort in it."""

from uuid import UUID

import pytest
from sqlalchemy import Engine, text

from tests.support.worked import work

Ids = dict[str, UUID]


@pytest.fixture
def worked(ledger: Engine) -> Engine:
    work(ledger)
    return ledger


@pytest.fixture
def ids(worked: Engine) -> Ids:
    """One assessment of each sort."""
    names = ("done", "failed", "running", "queued", "cancelled", "retried", "again")
    with worked.connect() as connection:
        found = connection.execute(
            text("SELECT key, id FROM assessment WHERE key = ANY(:names)"), {"names": list(names)}
        )
        return {row.key: row.id for row in found}

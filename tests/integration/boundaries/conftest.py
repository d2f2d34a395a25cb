"""Clusters whose next transaction id lies a little below a boundary."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest
from sqlalchemy import Engine

from moderation.ledger.engine import open_ledger
from moderation.services.postgres import LocalPostgres
from tests.support.crossing import BOUNDARIES, write_across
from tests.support.given_out import Recorded, recorded_in
from tests.support.transaction_ids import cluster_at, migrated_cluster


@dataclass(frozen=True)
class Cluster:
    """A running cluster in a folder, and its migrated ledger."""

    server: LocalPostgres
    folder: Path
    ledger: Engine

    @property
    def url(self) -> str:
        return self.server.url


@dataclass(frozen=True)
class Crossed:
    """A ledger that was written across a boundary, and what its table holds in commit order."""

    boundary: int
    url: str
    ledger: Engine
    table: list[Recorded]

    def ids(self, wanted: dict[str, str]) -> list[str]:
        return [row.id for row in self.table if row.passes(wanted)]


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stopped cluster with a migrated ledger, made once."""
    return migrated_cluster(tmp_path_factory.mktemp("template") / "postgres")


@pytest.fixture
def starting_at(template: Path, tmp_path: Path) -> Iterator[Callable[[int], Cluster]]:
    """Starts a cluster of the test's own at a transaction id."""
    numbers = count()
    with ExitStack() as stack:

        def start(next_id: int) -> Cluster:
            folder = tmp_path / f"postgres-{next(numbers)}"
            server = stack.enter_context(cluster_at(template, folder, next_id))
            engine = open_ledger(server.url)
            stack.callback(engine.dispose)
            return Cluster(server, folder, engine)

        yield start


@pytest.fixture(scope="session", params=BOUNDARIES)
def crossed(
    request: pytest.FixtureRequest, template: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Crossed]:
    """One ledger for each boundary, which readers share: they leave its verdicts as they are."""
    folder = tmp_path_factory.mktemp("crossed") / "postgres"
    with cluster_at(template, folder, request.param) as server:
        write_across(server.url)
        engine = open_ledger(server.url)
        yield Crossed(request.param + 5, server.url, engine, recorded_in(engine))
        engine.dispose()

"""A small Vetline in real processes: Postgres, Redis, a scripted SGLang, and workers that a test starts and kills."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import quote

import pytest
from PIL import Image
from sqlalchemy import Engine

from moderation.errors import Unavailable
from moderation.ledger import counters, migrate
from moderation.ledger.audit.run import audit
from moderation.ledger.engine import open_ledger
from moderation.ledger.policies import seed_builtin
from moderation.services.postgres import LocalPostgres
from producer import Client
from tests.support.checkpoint import write_checkpoint
from tests.support.runtime_worker import GONE_S, Keeper
from tests.support.sglang_server import ScriptedServer
from tests.support.waiting import wait_for
from tests.support.worker import RunningWorker

# Short times, so that a death is seen within seconds; the proportions are those of the defaults.
QUICK = {
    "VETLINE_LEASE_LEASE_S": "3",
    "VETLINE_LEASE_BEAT_S": "0.8",
    "VETLINE_LEASE_RETRY_BASE_S": "0.2",
    "VETLINE_QUEUE_SWEEP_S": "0.2",
    "VETLINE_AUDIT_EVERY_S": "1",
    "VETLINE_QUEUE_RING_AGAIN_S": "2",
    "VETLINE_QUEUE_SOCKET_TIMEOUT_S": "2",
    "VETLINE_WORKER_STALLED_S": "10",
    "VETLINE_WORKER_CONCURRENCY": "8",
}


class System:
    """The parts of a running Vetline, for a test to use and to break."""

    def __init__(self, env: dict[str, str], server: ScriptedServer, folder: Path, stack: ExitStack) -> None:
        self.env = env
        self.server = server
        self.folder = folder
        self._stack = stack
        self._workers = 0
        self.engine: Engine = open_ledger(env["DATABASE_URL"])
        stack.callback(self.engine.dispose)
        seed_builtin(self.engine)
        self.client = stack.enter_context(Client(env["DATABASE_URL"], env["REDIS_URL"]))

    def image(self, name: str, colour: tuple[int, int, int] = (200, 120, 40)) -> str:
        """The file: URI of a new picture; the same name and colour give the same bytes."""
        path = self.folder / f"{name}.png"
        Image.new("RGB", (32, 24), colour).save(path)
        return "file://" + quote(str(path))

    def worker(self, *options: str, ready: bool = True, **env: str) -> RunningWorker:
        self._workers += 1
        log = self.folder / f"worker-{self._workers}.log"
        chosen = [
            "--judge",
            "sglang",
            "--sglang-url",
            self.server.url,
            "--name",
            f"w{self._workers}",
            *options,
        ]
        running = self._stack.enter_context(RunningWorker(self.env | env, *chosen, log=log))
        return running.wait_until_ready() if ready else running

    def in_flight(self) -> int:
        """Images that the server was asked about and has not answered."""
        return sum(r.image is not None and r.outcome == "running" for r in self.server.requests)

    def counts(self) -> dict[str, int]:
        return counters.counts(self.engine)

    def wait_for_counts(self, *, timeout_s: float = 45, **wanted: int) -> None:
        wait_for(lambda: self.counts() == wanted, timeout_s=timeout_s, what=f"{wanted}, but {self.counts()}")


def breaches(database_url: str) -> list[str]:
    """What the audit finds in a ledger; nothing where Postgres was stopped, or nobody migrated it to this release."""
    engine = open_ledger(database_url)
    try:
        if migrate.current(engine) != migrate.head():
            return []
        return [f"{one.check}: {one.what}: {one.count} {one.ids}" for one in audit(engine).findings]
    except Unavailable:
        return []
    finally:
        engine.dispose()


@pytest.fixture
def postgres_url(postgres_url: str) -> Iterator[str]:
    """The ledger that a test leaves behind holds together, whatever was killed in it."""
    yield postgres_url
    assert breaches(postgres_url) == []


@pytest.fixture
def own_postgres(own_postgres: LocalPostgres) -> Iterator[LocalPostgres]:
    """As `postgres_url`, where it still runs."""
    yield own_postgres
    assert breaches(own_postgres.url) == []


@pytest.fixture
def system(services_env: dict[str, str], tmp_path: Path) -> Iterator[System]:
    with ExitStack() as stack:
        server = stack.enter_context(ScriptedServer())
        env = services_env | QUICK | {"VETLINE_FETCH_FILE_ROOTS": str(tmp_path)}
        yield System(env, server, tmp_path, stack)


@pytest.fixture
def system_of(tmp_path: Path) -> Iterator[Callable[[str, str], System]]:
    """For tests that bring their own Postgres or Redis."""
    with ExitStack() as stack:
        server = stack.enter_context(ScriptedServer())

        def make(database_url: str, redis_url: str) -> System:
            env = QUICK | {
                "DATABASE_URL": database_url,
                "REDIS_URL": redis_url,
                "VETLINE_FETCH_FILE_ROOTS": str(tmp_path),
            }
            return System(env, server, tmp_path, stack)

        yield make


@pytest.fixture
def keeper(system: System, tmp_path: Path) -> Iterator[Keeper]:
    write_checkpoint(tmp_path / "weights")
    keeper = Keeper(system, tmp_path / "plan.json")
    yield keeper
    for worker in keeper.started:
        if worker.process.poll() is None:
            worker.kill()
    wait_for(lambda: not keeper.left(), timeout_s=GONE_S, what="the end of the runtime")

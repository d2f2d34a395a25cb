"""One run: start everything, submit, break, wait for the end, check."""

import threading
import time
from contextlib import ExitStack
from pathlib import Path

from PIL import Image
from rich.console import Console
from sqlalchemy import Engine, TextClause, text

from bench.chaos.checker import Outcome, check
from bench.chaos.history import History
from bench.chaos.monkey import Monkey
from bench.chaos.plan import Plan
from bench.chaos.workers import Workers
from bench.followers import NEXT_ID, WEBHOOK_ENV, Endpoint, Follower
from moderation.errors import LedgerUnavailable
from moderation.ledger import migrate
from moderation.ledger.counters import counts
from moderation.ledger.engine import open_ledger
from moderation.ledger.policies import seed_builtin
from moderation.services.postgres import LocalPostgres
from moderation.services.redis import LocalRedis
from producer import Client
from tests.support.sglang_server import ScriptedServer
from tests.support.transaction_ids import go_on_at

console = Console(stderr=True, highlight=False)

_POLICY = "llavaguard-default"
_READ_OUT_S = 60.0
_TERMINAL = ("done", "failed", "cancelled")
BUSY = text("SELECT DISTINCT worker FROM assessment WHERE state = 'running'")


def run(plan: Plan, folder: Path) -> Outcome:
    """The outcome of a run. folder: keeps the history, the logs and the images."""
    images, logs = folder / "images", folder / "logs"
    for path in (images, logs):
        path.mkdir(parents=True)
    history = History(folder / "history.jsonl")
    with ExitStack() as stack:
        stack.callback(history.close)
        postgres = stack.enter_context(LocalPostgres.start(folder / "postgres"))
        redis_server = stack.enter_context(LocalRedis.start(folder / "redis", appendonly=False))
        server = stack.enter_context(ScriptedServer({"default": {"latency_s": plan.latency_s}}))
        engine = open_ledger(postgres.url)
        stack.callback(engine.dispose)
        migrate.upgrade(engine)
        seed_builtin(engine)
        engine.dispose()
        go_on_at(postgres, folder / "postgres", NEXT_ID)
        readers = _Readers(stack, engine, postgres.url)
        uris = [make_image(images, plan, number) for number in range(plan.items)]
        workers = Workers(
            ["-m", "moderation.cli", "worker", "--sglang-url", server.url, "--name"],
            worker_env(plan, postgres.url, redis_server.url, images),
            plan.workers,
            logs,
            history,
            up=b"worker_started",
        )
        monkey = Monkey(
            plan,
            workers,
            history=history,
            busy=lambda: workers_of(engine, BUSY),
            postgres=postgres,
            redis_server=redis_server,
        )
        client = stack.enter_context(Client(postgres.url, redis_server.url))
        workers.start()
        stack.callback(workers.dismiss)
        _break_while_submitting(plan, monkey, uris, client, history)
        monkey.rest()
        wait_for_the_end(plan, engine)
        given = readers.read_out()
        workers.dismiss()
        return check(history.path, engine, given)


class _Readers:
    """Everybody who reads the feed of a run. The workers send to the endpoint."""

    def __init__(self, stack: ExitStack, engine: Engine, database_url: str) -> None:
        self._engine = engine
        self._feed = stack.enter_context(Follower(database_url))
        self._consumer = stack.enter_context(Follower(database_url, consumer="chaos"))
        self._endpoint = stack.enter_context(Endpoint(engine))

    def read_out(self) -> dict[str, list[str]]:
        """What each was given once nothing is left, or it has had a minute to come to the end."""
        for follower in (self._feed, self._consumer):
            follower.read_out(self._engine, limit_s=_READ_OUT_S)
        self._endpoint.read_out(limit_s=_READ_OUT_S)
        return {
            "feed": list(self._feed.given),
            "consumer": list(self._consumer.given),
            "webhook": self._endpoint.given,
        }


def make_image(folder: Path, plan: Plan, number: int) -> str:
    """A small picture of its own; those that are poison say so in their names, for the workers' fault point."""
    every = plan.items // plan.poison if plan.poison else 0
    kind = "poison" if every and number % every == every // 2 and number // every < plan.poison else "item"
    path = folder / f"{kind}-{number}.png"
    Image.new("RGB", (24, 24), (number % 256, number // 256 % 256, number // 65536)).save(
        path, compress_level=1
    )
    return path.as_uri()


def worker_env(plan: Plan, database_url: str, redis_url: str, images: Path) -> dict[str, str]:
    return {
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "VETLINE_LOG_STYLE": "json",
        "VETLINE_FETCH_FILE_ROOTS": str(images),
        "VETLINE_WORKER_CONCURRENCY": str(plan.threads),
        "VETLINE_LEASE_LEASE_S": str(plan.lease_s),
        "VETLINE_LEASE_BEAT_S": str(plan.lease_s / 4),
        "VETLINE_FAULT": "judge=kill~poison",
        **WEBHOOK_ENV,
    }


def workers_of(engine: Engine, query: TextClause) -> set[str]:
    try:
        with engine.connect() as connection:
            return set(connection.execute(query).scalars())
    except Exception:  # noqa: BLE001 - Postgres is being stopped on purpose
        return set()


def _break_while_submitting(
    plan: Plan, monkey: Monkey, uris: list[str], client: Client, history: History
) -> None:
    """Spread the faults over the submissions: after each share of the items, one fault."""
    faults = plan.faults
    steps = max(1, len(faults))
    per_step = -(-len(uris) // steps)
    for step in range(steps):
        if faults:
            monkey.wait_for_the_workers()
        chunk = uris[step * per_step : (step + 1) * per_step]
        submitting = threading.Thread(target=_submit, args=(client, chunk, step * per_step, history))
        submitting.start()
        if faults:
            monkey.do(faults[step])
        submitting.join()
        if step % 20 == 0:
            console.print(f"fault {step}/{len(faults)}")


def _submit(client: Client, uris: list[str], first: int, history: History) -> None:
    """Submit until accepted, as an ingestion service does; the key makes a repeat harmless."""
    for number, uri in enumerate(uris, start=first):
        while True:
            try:
                ticket = client.submit(uri, _POLICY, key=f"item-{number}")
            except LedgerUnavailable:
                time.sleep(0.2)
            else:
                history.note("accepted", id=str(ticket.id), key=f"item-{number}")
                break


def wait_for_the_end(plan: Plan, engine: Engine) -> None:
    end = time.monotonic() + plan.limit_s
    while time.monotonic() < end:
        now = counts(engine)
        if not set(now) - set(_TERMINAL):
            return
        console.print(f"waiting: {now}")
        time.sleep(2)

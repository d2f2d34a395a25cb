"""One upgrade: the old release at work, the tables migrated under it, its workers swapped, everything counted."""

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from pydantic import BaseModel
from rich.console import Console
from sqlalchemy import Engine, text

from bench.chaos.checker import Outcome, check
from bench.chaos.history import History
from bench.followers import NEXT_ID, Follower
from bench.upgrade.release import Release, Running
from moderation.doorbell import Doorbell
from moderation.ledger.counters import counts
from moderation.ledger.engine import open_ledger
from moderation.services.postgres import LocalPostgres
from moderation.services.redis import LocalRedis
from tests.support.given_out import Comparison, compare, recorded_in
from tests.support.sglang_server import ScriptedServer
from tests.support.transaction_ids import go_on_at
from tests.support.waiting import wait_for

console = Console(stderr=True, highlight=False)

_CONSUMER = "takedown"
_READ_OUT_S = 60.0
_FINAL = {"done", "failed", "cancelled"}
_BY_RELEASE = text(
    "SELECT split_part(worker, '-', 1) AS release, count(*) AS n FROM attempt WHERE outcome = 'done' GROUP BY 1"
)


@dataclass(frozen=True, slots=True)
class Plan:
    """The numbers of a run. before_upgrade: the share of the items with a verdict when the tables are migrated."""

    items: int = 2000
    later: int = 500  # of them, submitted by the new release's producer, while old workers still run
    workers: int = 3
    threads: int = 8
    # Of the scripted judge: 24 items a second leave work for the releases to swap under.
    latency_s: float = 1.0
    before_upgrade: float = 0.1
    limit_s: float = 600.0


class Moment(BaseModel):
    """What was under way. messages: in Redis, rung and not yet taken."""

    states: dict[str, int]
    messages: int


class UpgradeOutcome(BaseModel):
    """What came of an upgrade. counted: lost, doubled, breaches and what each reader was given, as chaos counts it."""

    tables: str  # the revisions before and after, as `vetline db upgrade` says them
    migrated_s: float  # the whole command
    migrated_again_s: float  # the same command at once again, with nothing to do
    at_migration: Moment
    at_first_swap: Moment  # every message is of the old release
    workers_gone_s: list[float]
    verdicts_by_release: dict[str, int]
    read_by_old_consumer: int  # before the upgrade, under the name that the new release goes on with
    read_on: Comparison  # what the new release alone gave to that name
    counted: Outcome

    @property
    def good(self) -> bool:
        one = self.counted
        clean = one.lost == one.doubled == one.still_open == 0 and not one.failed and not one.breaches
        feed, consumer = one.given_out["feed"], one.given_out["consumer"]
        both_worked = self.at_first_swap.messages > 0 and set(self.verdicts_by_release) == {"old", "new"}
        # The old release may have passed a verdict over, which the new one gives out late: order is the new one's to keep.
        all_given = consumer.missing == consumer.unknown == self.read_on.out_of_order == 0
        return clean and feed.exact and all_given and both_worked


@dataclass(slots=True)
class _Site:
    """What both releases share."""

    plan: Plan
    engine: Engine
    doorbell: Doorbell
    runtime_url: str
    old: Release
    new: Release
    stack: ExitStack

    def started(self, running: Running) -> Running:
        self.stack.callback(running.kill)
        return running

    def now(self) -> Moment:
        return Moment(states=dict(counts(self.engine)), messages=self.doorbell.depth())


def upgrade_under_way(
    plan: Plan, folder: Path, *, old: tuple[Path, str], new: tuple[Path, str]
) -> UpgradeOutcome:
    """old, new: each the root of a checkout and the interpreter for it. folder: keeps images, logs and the history."""
    images, logs = folder / "images", folder / "logs"
    for path in (images, logs):
        path.mkdir(parents=True)
    with ExitStack() as stack:
        postgres = stack.enter_context(LocalPostgres.start(folder / "postgres"))
        redis = stack.enter_context(LocalRedis.start(folder / "redis"))
        runtime = stack.enter_context(ScriptedServer({"default": {"latency_s": plan.latency_s}}))
        env = _env(plan, postgres.url, redis.url, images)
        releases = [
            Release(name, root, python, env, logs) for name, (root, python) in (("old", old), ("new", new))
        ]
        releases[0].vetline("db", "upgrade")
        go_on_at(postgres, folder / "postgres", NEXT_ID)
        engine = open_ledger(postgres.url)
        stack.callback(engine.dispose)
        doorbell = Doorbell(redis.url)
        stack.callback(doorbell.close)
        site = _Site(plan, engine, doorbell, runtime.url, releases[0], releases[1], stack)
        items = [(f"item-{number}", _image(images, number)) for number in range(plan.items)]
        return _Upgrade(site, items, folder / "history.jsonl", postgres.url).run()


class _Upgrade:
    """The steps, in their order."""

    def __init__(self, site: _Site, items: list[tuple[str, str]], history: Path, database_url: str) -> None:
        self._site, self._plan = site, site.plan
        self._items = items
        self._history = history
        self._database_url = database_url

    def run(self) -> UpgradeOutcome:
        site, first = self._site, self._plan.items - self._plan.later
        old_workers = [self._worker(site.old, number) for number in range(self._plan.workers)]
        consumer = site.started(site.old.consumer(_CONSUMER))
        producers = [site.started(site.old.submit(self._items[:first]))]
        enough = round(self._plan.items * self._plan.before_upgrade)
        self._wait(lambda: counts(site.engine).get("done", 0) >= enough, "the first verdicts")
        consumer.stop()  # 0.1.0 loses verdicts as it reads: its readers stop before the upgrade
        at_migration = site.now()
        said, migrated_s = self._migrate()
        _, again_s = self._migrate()
        console.print(f"{said} in {migrated_s:.1f} s, while {at_migration.states}")
        at_first_swap = site.now()
        new_workers, gone_s = [self._worker(site.new, 0)], [old_workers[0].stop()]
        producers.append(site.started(site.new.submit(self._items[first:])))
        for number, worker in enumerate(old_workers[1:], start=1):
            new_workers.append(self._worker(site.new, number))
            gone_s.append(worker.stop())
            console.print(f"swapped {number + 1} of {len(old_workers)}: {site.now().states}")
        for producer in producers:
            producer.finish(self._plan.limit_s)
        self._wait(lambda: not set(counts(site.engine)) - _FINAL, "the end of all that is open")
        old_given = [str(line["assessment_id"]) for line in consumer.objects()]
        given = self._read_out()
        table = [row.id for row in recorded_in(self._site.engine)]
        read_on = compare(table, given["consumer"])
        given["consumer"] = old_given + given["consumer"]
        for worker in new_workers:
            worker.stop()
        return UpgradeOutcome(
            tables=said,
            migrated_s=round(migrated_s, 2),
            migrated_again_s=round(again_s, 2),
            at_migration=at_migration,
            at_first_swap=at_first_swap,
            workers_gone_s=[round(took, 2) for took in gone_s],
            verdicts_by_release=self._by_release(),
            read_by_old_consumer=len(old_given),
            read_on=read_on,
            counted=self._check(producers, given),
        )

    def _migrate(self) -> tuple[str, float]:
        """What the new release's upgrade says, and how many seconds it took."""
        start = time.monotonic()
        said = self._site.new.vetline("db", "upgrade").strip().splitlines()[-1]
        return said, time.monotonic() - start

    def _worker(self, release: Release, number: int) -> Running:
        return self._site.started(release.worker(f"{release.name}-{number}", self._site.runtime_url))

    def _wait(self, condition: Callable[[], bool], what: str) -> None:
        wait_for(condition, timeout_s=self._plan.limit_s, every_s=0.2, what=what)

    def _read_out(self) -> dict[str, list[str]]:
        """The whole feed, and what the consumer is given from where it stands now."""
        with Follower(self._database_url) as feed, Follower(self._database_url, consumer=_CONSUMER) as reader:
            for follower in (feed, reader):
                follower.read_out(self._site.engine, limit_s=_READ_OUT_S)
            return {"feed": list(feed.given), "consumer": list(reader.given)}

    def _by_release(self) -> dict[str, int]:
        with self._site.engine.connect() as connection:
            return {row.release: row.n for row in connection.execute(_BY_RELEASE)}

    def _check(self, producers: list[Running], given: dict[str, list[str]]) -> Outcome:
        """Hold what the producers said was accepted against the database, as chaos does."""
        history = History(self._history)
        for producer in producers:
            for ticket in producer.objects():
                history.note("accepted", **ticket)
        history.close()
        return check(self._history, self._site.engine, given)


def _image(folder: Path, number: int) -> str:
    path = folder / f"item-{number}.png"
    colour = (number % 256, number // 256 % 256, number // 65536)
    Image.new("RGB", (24, 24), colour).save(path, compress_level=1)
    return path.as_uri()


def _env(plan: Plan, database_url: str, redis_url: str, images: Path) -> dict[str, str]:
    return {
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "VETLINE_LOG_STYLE": "json",
        "VETLINE_FETCH_FILE_ROOTS": str(images),
        "VETLINE_WORKER_CONCURRENCY": str(plan.threads),
    }

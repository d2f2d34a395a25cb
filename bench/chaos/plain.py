"""Plain Celery clients under kills: what Celery's own client sends is judged once, whatever dies meanwhile.

All priorities, every fifth with a countdown. Workers are killed while they have work in hand; of their own they die now
and then between taking a message and its commit, and between that and letting go of it. Redis is killed too, with
`appendonly yes` and `appendfsync always`, which docs/operations.md asks for where plain clients push.

    python -m bench.chaos --plain
"""

from collections import Counter
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from celery import Celery
from pydantic import BaseModel
from sqlalchemy import Engine, text

from bench.chaos.history import History, read_history
from bench.chaos.monkey import Monkey
from bench.chaos.peer import plain_options, send_and_break, until_sent
from bench.chaos.plan import Plan
from bench.chaos.run import BUSY, console, make_image, wait_for_the_end, worker_env, workers_of
from bench.chaos.workers import Workers
from moderation.ledger import migrate
from moderation.ledger.audit.run import audit
from moderation.ledger.engine import open_ledger
from moderation.ledger.policies import seed_builtin
from moderation.plain_queue import PlainQueue
from moderation.services.postgres import LocalPostgres
from moderation.services.redis import LocalRedis
from tests.support.sglang_server import ScriptedServer
from tests.support.waiting import wait_for

_TASK, _POLICY = "vetline.assess", "llavaguard-default"
_DEATHS = "after_plain_pop=kill%0.02; before_plain_done=kill%0.02"  # of its turns that took messages
_ROWS = text("""
    SELECT a.key, a.state, a.priority, a.not_before IS NOT NULL AS later, count(v.assessment_id) AS verdicts
    FROM assessment a LEFT JOIN verdict v ON v.assessment_id = a.id GROUP BY a.id
""")


class PlainOutcome(BaseModel):
    """What a run came to. lost: sent and without a verdict. doubled: with more than one row or verdict."""

    sent: int
    rows: int
    verdicts: int
    lost: int
    doubled: int
    priorities: dict[str, int]  # of the rows, as they were mapped
    rejected: int
    breaches: list[str]
    kills: int
    redis_kills: int
    deaths_in_hand: int  # of their own, with messages taken and not let go of


def only_what_plain_clients_meet(plan: Plan) -> Plan:
    """Kills of workers and of Redis: the other faults are the ledger's, and told of by the run without --plain."""
    return replace(plan, poison=0, terms=0, freezes=0, flushes=0, postgres_stops=0)


def run_plain(plan: Plan, folder: Path) -> PlainOutcome:
    """The outcome of a run. folder: keeps the history, the logs and the images."""
    images, logs = folder / "images", folder / "logs"
    for path in (images, logs):
        path.mkdir(parents=True)
    history = History(folder / "history.jsonl")
    with ExitStack() as stack:
        stack.callback(history.close)
        postgres = stack.enter_context(LocalPostgres.start(folder / "postgres"))
        redis_server = stack.enter_context(LocalRedis.start(folder / "redis", fsync="always"))
        server = stack.enter_context(ScriptedServer({"default": {"latency_s": plan.latency_s}}))
        engine = open_ledger(postgres.url)
        stack.callback(engine.dispose)
        migrate.upgrade(engine)
        seed_builtin(engine)
        workers = Workers(
            ["-m", "moderation.cli", "worker", "--sglang-url", server.url, "--name"],
            worker_env(plan, postgres.url, redis_server.url, images) | {"VETLINE_FAULT": _DEATHS},
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
        workers.start()
        stack.callback(workers.dismiss)
        send_and_break(plan, _Sender(redis_server.url, images, plan), monkey)
        _wait(plan, engine, redis_server.url)
        workers.dismiss()
        return _outcome(plan, engine, history.path)


class _Sender:
    """Celery's own client."""

    def __init__(self, broker: str, images: Path, plan: Plan) -> None:
        self._app, self._images, self._plan = Celery(broker=broker), images, plan

    def send(self, item: int) -> None:
        told = {"uri": make_image(self._images, self._plan, item), "policy": _POLICY}
        until_sent(
            lambda: self._app.send_task(
                _TASK, kwargs=told, queue="vetline", retry=False, **plain_options(item)
            )
        )


def _wait(plan: Plan, engine: Engine, redis_url: str) -> None:
    """Until no message waits and no row is open."""
    queue = PlainQueue(redis_url)
    console.print("all sent")
    wait_for(lambda: queue.is_empty(), timeout_s=plan.limit_s, every_s=1.0, what="no message left in Redis")
    queue.close()
    wait_for_the_end(plan, engine)


def _outcome(plan: Plan, engine: Engine, history: Path) -> PlainOutcome:
    events = list(read_history(history))
    with engine.connect() as connection:
        rows = list(connection.execute(_ROWS))
        rejected = int(connection.execute(text("SELECT count(*) FROM rejected_message")).scalar_one())
    by_key = Counter(row.key for row in rows)
    judged = {row.key for row in rows if row.state == "done" and row.verdicts}
    wanted = {f"celery:{plain_options(item)['task_id']}" for item in range(plan.items)}
    return PlainOutcome(
        sent=plan.items,
        rows=len(rows),
        verdicts=sum(row.verdicts for row in rows),
        lost=len(wanted - judged),
        doubled=sum(count > 1 for count in by_key.values()) + sum(row.verdicts > 1 for row in rows),
        priorities={name: sum(row.priority == n for row in rows) for name, n in (("normal", 1), ("low", 2))},
        rejected=rejected,
        breaches=[f"{one.check}: {one.what}: {one.count} {one.ids}" for one in audit(engine).findings],
        kills=sum(event["event"] == "kill" for event in events),
        redis_kills=sum(event["event"] == "redis_kill" for event in events),
        deaths_in_hand=sum(e["event"] == "ended" and e["fault"] is None and e["code"] == -9 for e in events),
    )

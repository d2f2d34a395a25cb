"""The feed's promises, counted: python -m bench.feed [--kills 50] [--verdicts 20000]

Sixteen writers commit out of order. `vetline feed --follow --consumer takedown` writes its lines to a file, is killed
with SIGKILL again and again in the middle of its work, and started anew. Then the files are held against the ledger:
each verdict seen, in order, none skipped, and what came twice is no more than the batch that was not acknowledged. A
reader of the feed, a webhook and a cursor over the plain serial number run beside it. All of them are held against the
table of verdicts, which begins a little below a power of ten of the transaction ids. Exit 1 where one differs. Last,
what a notification costs whoever commits.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, text

from bench.followers import NEXT_ID, Endpoint, Follower, agree, compared
from bench.machine import describe_machine
from moderation.ledger.engine import open_ledger, transaction
from moderation.ledger.migrate import upgrade
from moderation.ledger.policies import seed_builtin
from moderation.services.postgres import LocalPostgres
from moderation.settings import LedgerSettings
from tests.support.given_out import Comparison, recorded_in
from tests.support.recorded import record
from tests.support.transaction_ids import go_on_at
from worker.webhooks.post import Poster
from worker.webhooks.sender import Sender
from worker.webhooks.settings import WebhookSettings

WRITERS = 16
BATCH = 50  # verdicts that a kill may bring again
_RESULT = Path(__file__).parent / "results" / "feed.json"
_LEASE_S = 1.0
_WAIT_S = 60.0
_ROUNDS = 4
_BY_NUMBER = text("SELECT seq FROM verdict WHERE seq > :last ORDER BY seq")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the files hold against the ledger."""

    verdicts: int
    kills: int
    seen: int
    skipped: int
    out_of_order: int
    repeated: int
    most_repeated_after_a_kill: int
    batch: int
    missed_by_the_plain_number: int
    elapsed_s: float
    given_out: dict[str, Comparison]  # what feed, consumer and webhook were given, against the table

    @property
    def holds(self) -> bool:
        return (
            self.seen == self.verdicts
            and agree(self.given_out)
            and self.skipped == self.out_of_order == 0
            and self.most_repeated_after_a_kill <= self.batch
        )


def run(database_url: str, folder: Path, *, kills: int, verdicts: int, pace_s: float) -> Outcome:
    """pace_s: how long the writers take for all verdicts, about; the kills fall into that time."""
    began = time.monotonic()
    engine = open_ledger(database_url, LedgerSettings(pool_size=WRITERS + 4))
    seed_builtin(engine)
    over = threading.Event()
    written = verdicts // WRITERS * WRITERS
    with (
        ThreadPoolExecutor(WRITERS + 2) as pool,
        Endpoint(engine) as endpoint,
        Follower(database_url) as feed,
    ):
        by_number = pool.submit(_follow_the_number, engine, over)
        sending = pool.submit(_send, engine, endpoint, over)
        writers = [pool.submit(_write, engine, n, verdicts // WRITERS, pace_s) for n in range(WRITERS)]
        try:
            files = [_killed(database_url, folder / f"{n}.jsonl", random.Random(n)) for n in range(kills)]
            for writer in writers:
                writer.result()
            feed.read_out(engine, limit_s=_WAIT_S)
            endpoint.read_out(limit_s=_WAIT_S)
        finally:
            over.set()
        counted = by_number.result()
        sending.result()
        given = {"feed": list(feed.given), "webhook": endpoint.given}
    files.append(folder / "last.jsonl")
    _read_out(database_url, files[-1])
    runs = [_lines(file) for file in files]
    given["consumer"] = [id_ for lines in runs for id_ in lines]
    order = [row.id for row in recorded_in(engine)]
    assert len(order) == written
    found = compared(engine, given)
    engine.dispose()
    return _hold_against(
        order, runs, missed=written - counted, elapsed_s=time.monotonic() - began, given_out=found
    )


def _send(engine: Engine, endpoint: Endpoint, over: threading.Event) -> None:
    """Turn after turn at the endpoint, as a worker takes them."""
    settings = WebhookSettings(allow_hosts=("127.0.0.0/8",), allow_http=True)
    with closing(Poster(settings)) as poster:
        sender = Sender(engine, poster, settings, worker="bench")
        while not over.is_set():
            sender.deliver(endpoint.id)
            over.wait(0.05)


def _hold_against(
    order: list[str],
    runs: list[list[str]],
    *,
    missed: int,
    elapsed_s: float,
    given_out: dict[str, Comparison],
) -> Outcome:
    """Each run must be a stretch of the order that begins no later than where the last one ended."""
    place = {id_: number for number, id_ in enumerate(order)}
    seen: set[str] = set()
    at = skipped = out_of_order = repeated = most = 0
    for lines in (lines for lines in runs if lines):
        places = [place[id_] for id_ in lines]
        skipped += max(0, places[0] - at)
        again = max(0, at - places[0])
        repeated, most = repeated + again, max(most, again)
        out_of_order += sum(b != a + 1 for a, b in pairwise(places))
        at = max(at, places[-1] + 1)
        seen.update(lines)
    return Outcome(
        verdicts=len(order),
        kills=len(runs) - 1,
        seen=len(seen),
        skipped=skipped,
        out_of_order=out_of_order,
        repeated=repeated,
        most_repeated_after_a_kill=most,
        batch=BATCH,
        missed_by_the_plain_number=missed,
        elapsed_s=round(elapsed_s, 1),
        given_out=given_out,
    )


def _write(engine: Engine, writer: int, count: int, pace_s: float) -> None:
    """One to five verdicts a transaction, which then stays open for a while: others pass it."""
    chance = random.Random(writer)
    written = 0
    while written < count:
        number = min(count - written, chance.randint(1, 5))
        with transaction(engine) as connection:
            record(connection, number, first=written, prefix=f"w{writer}-")
            time.sleep(chance.uniform(0, 0.03))
        written += number
        time.sleep(chance.uniform(0, 2) * number * pace_s / count)


def _follow_the_number(engine: Engine, over: threading.Event) -> int:
    """How many rows a reader sees who remembers the highest number, as most do."""
    last = seen = 0
    while True:
        was_over = over.is_set()
        with engine.connect() as connection:
            numbers = connection.execute(_BY_NUMBER, {"last": last}).scalars().all()
        if numbers:
            last, seen = numbers[-1], seen + len(numbers)
        elif was_over:
            return seen
        time.sleep(0.005)


def _killed(database_url: str, file: Path, chance: random.Random) -> Path:
    """Start the consumer, let it write some lines, and kill it wherever it then is."""
    consumer = _consumer(database_url, file, "--follow")
    enough = chance.randint(1, 4 * BATCH)
    deadline = time.monotonic() + _WAIT_S
    while file.read_bytes().count(b"\n") < enough and time.monotonic() < deadline:
        assert consumer.poll() is None, f"it ended with {consumer.returncode}"
        time.sleep(0.0005)
    if chance.random() < 0.3:  # else between the lines and their acknowledgement, if it is quick enough
        time.sleep(chance.uniform(0, 0.02))
    consumer.send_signal(signal.SIGKILL)
    consumer.wait()
    return file


def _read_out(database_url: str, file: Path) -> None:
    """To the end of the feed; the last one killed may hold the name for the rest of its lease."""
    time.sleep(_LEASE_S)
    consumer = _consumer(database_url, file)
    if consumer.wait(600) != 0:
        raise RuntimeError(f"the consumer ended with {consumer.returncode}")


def _consumer(database_url: str, file: Path, *options: str) -> subprocess.Popen[bytes]:
    env = os.environ | {
        "DATABASE_URL": database_url,
        "VETLINE_FEED_BATCH_SIZE": str(BATCH),
        "VETLINE_FEED_LEASE_S": str(_LEASE_S),
    }
    words = [sys.executable, "-P", "-m", "moderation.cli", "feed", "--consumer", "takedown", *options]
    with file.open("wb") as out:
        return subprocess.Popen(words, env=env, stdout=out, start_new_session=True)


def _lines(file: Path) -> list[str]:
    """The ids in whole lines; a kill may leave half a line."""
    whole = file.read_bytes().rpartition(b"\n")[0]
    return [json.loads(line)["assessment_id"] for line in whole.splitlines()]


def notification_costs(database_url: str, *, connections: int = 8, seconds: float = 3.0) -> dict[str, float]:
    """Commits per second of one row each, on disk, from so many connections, by how others are told of them."""
    engine = open_ledger(database_url, LedgerSettings(pool_size=connections + 2))
    with engine.connect() as connection:
        connection.execute(text("CREATE TABLE IF NOT EXISTS bench_row (n bigint)"))
    insert = "INSERT INTO bench_row VALUES (1)"
    inside = f"WITH row AS ({insert}) SELECT pg_notify('bench', '')"

    def rate(statement: str, tell: Callable[[], None] | None) -> float:
        over = threading.Event()
        counts = [0] * connections

        def commit(number: int) -> None:
            with engine.connect() as connection:
                while not over.is_set():
                    connection.execute(text(statement))
                    counts[number] += 1

        def tell_now_and_then() -> None:
            while tell is not None and not over.wait(0.1):
                tell()

        with ThreadPoolExecutor(connections + 1) as pool:
            jobs = [pool.submit(commit, n) for n in range(connections)] + [pool.submit(tell_now_and_then)]
            time.sleep(seconds)
            over.set()
            for job in jobs:
                job.result()
        return round(sum(counts) / seconds)

    def notify() -> None:
        with engine.connect() as connection:
            connection.execute(text("NOTIFY bench"))

    try:
        # In turn, and the best of each: the machine has other things to do.
        ways: dict[str, tuple[str, Callable[[], None] | None]] = {
            "none": (insert, None),
            "one in each transaction": (inside, None),
            "one in 100 ms, by itself": (insert, notify),
        }
        found: dict[str, float] = {}
        for _ in range(_ROUNDS):
            for name, (statement, tell) in ways.items():
                found[name] = max(found.get(name, 0), rate(statement, tell))
        return found
    finally:
        engine.dispose()


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--verdicts", type=int, default=20_000)
    parser.add_argument("--pace", type=float, default=150, help="seconds that the writers take")
    parser.add_argument("--out", type=Path, default=_RESULT)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="vetline-feed-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        with LocalPostgres.start(folder / "postgres", fsync=True) as server:
            engine = open_ledger(server.url)
            upgrade(engine)
            engine.dispose()
            go_on_at(server, folder / "postgres", NEXT_ID)
            outcome = run(server.url, folder, kills=given.kills, verdicts=given.verdicts, pace_s=given.pace)
            costs = notification_costs(server.url)
    result: dict[str, Any] = {
        "machine": describe_machine() | {"load_average": round(os.getloadavg()[0], 1)},
        "killed_consumer": asdict(outcome) | {"holds": outcome.holds},
        "commits_per_s_by_notification": costs,
    }
    given.out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))
    return 0 if outcome.holds else 1


if __name__ == "__main__":
    sys.exit(main())

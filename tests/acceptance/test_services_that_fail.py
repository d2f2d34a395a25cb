"""Redis and Postgres flushed, killed, frozen, read-only or full under real workers: what was accepted is judged, once.

Each test says in how many seconds after the service is well again the last item must be judged. The times are those
of the acceptance settings (leases of 3 s, rings repeated after 3 s), not of the defaults, whose proportions are the same.
"""

import math
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from uuid import UUID

import pytest
import redis
from sqlalchemy import text

from moderation.doorbell import Doorbell
from moderation.errors import LedgerUnavailable
from moderation.ledger import queries
from moderation.ledger.engine import open_ledger
from moderation.ledger.migrate import upgrade
from moderation.services.postgres import LocalPostgres
from moderation.services.redis import LocalRedis
from moderation.settings import LeaseSettings, QueueSettings
from producer.chunks import CHUNK
from producer.client import Client
from tests.acceptance.conftest import System
from tests.support.conservation import violations
from tests.support.ledger import POLICY, attempts, row
from tests.support.waiting import wait_for
from worker.sweeper import Sweeper

SystemOf = Callable[[str, str], System]

HAND = 8  # images that one worker has in hand: VETLINE_WORKER_CONCURRENCY of the acceptance settings


@pytest.fixture
def own_system(system_of: SystemOf, own_postgres: LocalPostgres, own_redis: LocalRedis) -> System:
    """A system whose Postgres and Redis are this test's to break."""
    engine = open_ledger(own_postgres.url)
    upgrade(engine)
    engine.dispose()
    return system_of(own_postgres.url, own_redis.url)


@contextmanager
def asked(own_redis: LocalRedis) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(own_redis.url, socket_timeout=10) as client:
        yield client


def submitted(system: System, count: int, *, name: str = "i") -> list[UUID]:
    """Images that are each judged for themselves, though they may look alike."""
    return [
        system.client.submit(system.image(f"{name}{n}", (n, n, n)), POLICY, reuse=False).id
        for n in range(count)
    ]


def judged_within(system: System, seconds: float, accepted: list[UUID]) -> None:
    """All of these have one verdict, in so many seconds from now; nothing is lost, doubled or charged for it."""
    system.wait_for_counts(timeout_s=seconds, done=len(accepted))
    assert violations(system.engine, accepted) == []
    assert {row(system.engine, id_)["charged"] for id_ in accepted} == {1}


def full_hand(system: System) -> None:
    wait_for(lambda: system.in_flight() == HAND, what="a full hand")


def test_a_flushed_redis_loses_no_queued_work(own_system: System, own_redis: LocalRedis) -> None:
    system = own_system
    system.worker()
    system.server.script(default={"latency_s": 0.3})
    accepted = submitted(system, 40)
    full_hand(system)
    with asked(own_redis) as client:
        assert client.llen("vetline.due") > HAND
        client.flushall()
    judged_within(system, 12, accepted)


def test_a_redis_killed_without_persistence_is_found_again(own_system: System, own_redis: LocalRedis) -> None:
    """And it is work that goes on, not only the connection: also what is submitted after the second kill."""
    system = own_system
    system.worker()
    system.server.script(default={"latency_s": 0.3})
    accepted = []
    for round_ in range(2):
        accepted += submitted(system, 24, name=f"r{round_}-")
        full_hand(system)
        own_redis.kill()
        own_redis.restart()
        accepted += submitted(system, 1, name=f"after-{round_}-")
        judged_within(system, 12, accepted)


@pytest.mark.parametrize("fault", ["read-only", "full"])
def test_a_redis_that_refuses_writes_keeps_nothing_from_being_accepted(
    own_system: System, own_redis: LocalRedis, fault: str
) -> None:
    system = own_system
    worker = system.worker()
    accepted = submitted(system, 4)
    system.wait_for_counts(done=4)
    with asked(own_redis) as client:
        refuse(client, fault)
        with pytest.raises(redis.ResponseError):
            client.set("probe", "1")
        accepted += submitted(system, 12, name="refused")
        wait_for(lambda: worker.said("sweep_without_redis"), what="a ring refused")
        assert system.counts() == {"done": 4, "queued": 12}
        relent(client, fault)
    judged_within(system, 12, accepted)
    assert worker.process.poll() is None, "the same worker, with its model loaded"


def refuse(client: redis.Redis, fault: str) -> None:
    if fault == "read-only":
        client.replicaof("127.0.0.1", "1")  # a replica of a primary that is not there, as after a failover
    else:
        client.config_set("maxmemory", 1)


def relent(client: redis.Redis, fault: str) -> None:
    if fault == "read-only":
        client.replicaof("NO", "ONE")
    else:
        client.config_set("maxmemory", 0)


def test_a_redis_that_stood_still_for_a_while_is_found_again(
    own_system: System, own_redis: LocalRedis
) -> None:
    """Half open: the connections stand, and nothing answers for longer than a socket may keep us waiting."""
    system = own_system
    worker = system.worker()
    system.server.script(default={"latency_s": 0.3})
    accepted = submitted(system, 16)
    full_hand(system)
    os.kill(own_redis.pid, signal.SIGSTOP)
    try:
        accepted += submitted(system, 8, name="meanwhile")
        wait_for(lambda: worker.said("sweep_without_redis"), what="the sweeper's wait for an answer")
    finally:
        os.kill(own_redis.pid, signal.SIGCONT)
    judged_within(system, 15, accepted)


def start_again(own_postgres: LocalPostgres, system: System) -> None:
    own_postgres.restart("immediate")
    system.engine.dispose()  # the test's own connections; the workers' and the client's are theirs to mend


def answered(system: System) -> int:
    return sum(r.image is not None and r.outcome == "answered" for r in system.server.requests)


def at_least(system: System, count: int) -> bool:
    return answered(system) >= count


def test_answers_that_came_while_postgres_was_down_are_written_and_not_asked_for_again(
    own_system: System, own_postgres: LocalPostgres
) -> None:
    """Down for longer than the leases last, which nobody could renew meanwhile: they are not taken for deaths."""
    system = own_system
    worker = system.worker(VETLINE_LEASE_LEASE_S="5", VETLINE_LEASE_BEAT_S="1.5")
    system.server.script(default={"latency_s": 1})
    accepted = submitted(system, HAND)
    full_hand(system)
    claimed_at = time.monotonic()
    own_postgres.stop("immediate")
    wait_for(lambda: answered(system) == HAND, what="all answers, with nowhere to write them")
    wait_for(lambda: time.monotonic() > claimed_at + 6, what="the leases of 5 s to run out")
    start_again(own_postgres, system)
    judged_within(system, 10, accepted)
    assert worker.process.poll() is None
    assert answered(system) == HAND, "no image was judged twice"
    assert all([a["outcome"] for a in attempts(system.engine, id_)] == ["done"] for id_ in accepted)


def test_a_postgres_stopped_at_once_time_and_again_loses_nothing(
    own_system: System, own_postgres: LocalPostgres
) -> None:
    """Under load, so that the stops fall on claims, records and sweeps alike."""
    system = own_system
    system.worker()
    system.server.script(default={"latency_s": 0.05})
    accepted = submitted(system, 150)
    for wanted in (30, 70, 110):
        wait_for(partial(at_least, system, wanted), what=f"{wanted} answers")
        start_again(own_postgres, system)
    judged_within(system, 15, accepted)
    # A claim whose reply was lost costs a lease; an answer is thrown away only where its claim was.
    assert answered(system) <= len(accepted) + 3 * HAND


def test_submitting_without_postgres_is_one_error_and_leaves_nothing_half_written(
    own_system: System, own_postgres: LocalPostgres
) -> None:
    """What came in whole chunks before stays accepted; of the chunk that met the stop, all or nothing.

    Two are committed while the next is read.
    """
    system = own_system
    accepted: list[UUID] = []

    def uris() -> Iterator[str]:
        for number in range(5 * CHUNK):
            if number == 3 * CHUNK + 10:
                own_postgres.stop("immediate")
            yield f"https://images.test/{number}.jpg"

    with pytest.raises(LedgerUnavailable, match="Postgres"):
        system.client.submit_many(
            uris(), POLICY, on_tickets=lambda tickets: accepted.extend(t.id for t in tickets)
        )
    with pytest.raises(LedgerUnavailable):
        system.client.submit("https://images.test/one.jpg", POLICY, key="one")
    start_again(own_postgres, system)
    ticket = system.client.submit("https://images.test/one.jpg", POLICY, key="one")
    assert not ticket.known
    assert len(accepted) in (CHUNK, 2 * CHUNK, 3 * CHUNK)
    # Those that were under way may be committed, their replies lost.
    assert system.counts()["queued"] - 1 in (CHUNK, 2 * CHUNK, 3 * CHUNK)
    assert violations(system.engine, [*accepted, ticket.id]) == []


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGSTOP])
def test_a_sweeper_that_dies_or_freezes_while_it_rings_is_replaced(
    own_system: System, end: signal.Signals
) -> None:
    """It holds the lock of all sweepers: Postgres takes it away at once from a dead one, in 10 s from a frozen one."""
    system = own_system
    sleeper = system.worker(VETLINE_FAULT="before_ring=sleep:60")
    with Client(system.env["DATABASE_URL"], None) as quiet:  # without Redis, the sweeper alone rings
        accepted = [quiet.submit(system.image("a"), POLICY).id]
    wait_for(lambda: sweepers(system), what="the sweeper to stand in the middle of a ring")
    other = system.worker()
    sleeper.send(end)
    judged_within(system, 9 if end is signal.SIGKILL else 15, accepted)
    assert row(system.engine, accepted[0])["worker"] == "w2"
    assert other.process.poll() is None


def sweepers(system: System) -> int:
    """How many hold the lock of all sweepers outside a statement."""
    held = text("""
        SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid)
        WHERE locktype = 'advisory' AND granted AND state = 'idle in transaction'
    """)
    with system.engine.connect() as connection:
        return int(connection.execute(held).scalar_one())


def test_of_many_sweepers_one_rings_each_row(own_system: System, own_redis: LocalRedis) -> None:
    system = own_system
    lease, queue = LeaseSettings(), QueueSettings(sweep_s=0.02)
    with ExitStack() as stack:
        stack.callback((doorbell := Doorbell(own_redis.url)).close)
        for name in ("s1", "s2", "s3"):
            sweeper = Sweeper(system.engine, doorbell, worker=name, lease=lease, queue=queue)
            sweeper.start()
            stack.callback(sweeper.stop)
        with Client(system.env["DATABASE_URL"], None) as quiet:
            quiet.submit_many([f"https://images.test/{n}.jpg" for n in range(500)], POLICY)
        wait_for(lambda: rung(system) >= 500, what="500 rings")
        swept_at = time.time()
        wait_for(lambda: last_swept(system) > swept_at + 0.2, what="some sweeps more")
    assert rung(system) == 500
    with asked(own_redis) as client:
        assert client.llen("vetline.due") == 500


def rung(system: System) -> int:
    return int((queries.last_sweep(system.engine) or {"rung": 0})["rung"])


def last_swept(system: System) -> float:
    return time.time() - float((queries.last_sweep(system.engine) or {"age_s": math.inf})["age_s"])

"""A worker whose connection to Redis looks well and brings nothing: it connects anew, and ends where that does not help.

Between worker and Redis stands a proxy. It lets everything pass but the answers on connections that ask for messages:
BRPOP arrives, Redis pops and answers, the worker never hears of it, and no side is told. All else goes on, so the
worker sees that messages wait. kombu itself would notice after 26 s; the watch on progress is set to 3 s here.
"""

from collections.abc import Callable, Iterator
from uuid import UUID

import pytest
from sqlalchemy.engine import make_url

from tests.acceptance.conftest import System
from tests.support.conservation import violations
from tests.support.ledger import POLICY, row
from tests.support.proxy import Proxy
from tests.support.waiting import wait_for
from tests.support.worker import RunningWorker

STALLED_S = 3.0
LOOK_S = STALLED_S / 4  # how often the watch looks
SOCKET_TIMEOUT_S = 1.0
CLOSE_S = 3 * SOCKET_TIMEOUT_S  # of connections that do not answer: some of them one after the other
DRAIN_S = 2.0
NOTICED_S = STALLED_S + 2 * LOOK_S  # one look to see it starve, one to see that it still does


@pytest.fixture
def proxy(redis_url: str) -> Iterator[Proxy]:
    port = make_url(redis_url).port
    assert port is not None
    with Proxy(port) as between:
        yield between


@pytest.fixture
def far_system(
    proxy: Proxy, system_of: Callable[[str, str], System], postgres_url: str, redis_url: str
) -> System:
    """A system that reaches its Redis through the proxy."""
    url = make_url(redis_url).set(port=proxy.port).render_as_string(hide_password=False)
    return system_of(postgres_url, url)


def watched_worker(system: System) -> RunningWorker:
    return system.worker(
        VETLINE_WORKER_STALLED_S=str(STALLED_S),
        VETLINE_WORKER_DRAIN_S=str(DRAIN_S),
        VETLINE_QUEUE_SOCKET_TIMEOUT_S=str(SOCKET_TIMEOUT_S),
    )


def asks_for_messages(sent: bytes) -> bool:
    return b"BRPOP" in sent


def is_celerys(sent: bytes) -> bool:
    """The doorbell gives its connections no name; Celery's tell theirs first, and so never come to be."""
    return b"SETNAME" in sent


def submitted(system: System, name: str, count: int) -> list[UUID]:
    return [system.client.submit(system.image(f"{name}{n}"), POLICY, reuse=False).id for n in range(count)]


def judged_within(system: System, seconds: float, accepted: list[UUID]) -> None:
    system.wait_for_counts(timeout_s=seconds, done=len(accepted))
    assert violations(system.engine, accepted) == []
    assert {row(system.engine, id_)["charged"] for id_ in accepted} == {1}


def test_a_consumer_that_gets_nothing_connects_anew_and_goes_on(far_system: System, proxy: Proxy) -> None:
    system = far_system
    worker = watched_worker(system)
    accepted = submitted(system, "before", 4)
    system.wait_for_counts(done=4)
    assert proxy.swallow_replies(asks_for_messages) == 1
    accepted += submitted(system, "after", 6)
    # One message was popped into the void; its row is rung again 2 s later.
    judged_within(system, NOTICED_S + CLOSE_S + 5, accepted)
    assert worker.said('"consumer_stalled"')
    assert not worker.said('"consumer_stalled_again"')
    accepted += submitted(system, "later", 4)
    judged_within(system, 5, accepted)
    assert worker.process.poll() is None


@pytest.mark.parametrize("half_open", [asks_for_messages, is_celerys])
def test_a_worker_that_gets_nothing_by_connecting_anew_ends_for_its_supervisor(
    far_system: System, proxy: Proxy, half_open: Callable[[bytes], bool]
) -> None:
    """Whether it connects and gets nothing, or cannot even connect. Celery's thread may then hang in its own heartbeat."""
    system = far_system
    worker = watched_worker(system)
    assert proxy.swallow_replies(half_open, new_ones_too=True) >= 1
    accepted = submitted(system, "i", 6)
    limit_s = 2 * NOTICED_S + max(CLOSE_S, STALLED_S) + DRAIN_S + 3
    wait_for(lambda: worker.process.poll() is not None, timeout_s=limit_s, what="the worker's end")
    assert worker.process.returncode == 75, "not 0, which would tell a supervisor that all is done"
    assert worker.said('"consumer_stalled_again"')
    assert worker.said('"worker_stopped"') or worker.said('"drain_timed_out"')
    assert system.counts() == {"queued": 6}
    proxy.swallow_replies(None)
    system.worker()
    judged_within(system, 10, accepted)

"""What Flower hears of a worker: every task, though events are gathered; and none while nobody hears. About 9 s."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from celery import Celery

from tests.acceptance.conftest import System
from tests.support.ledger import POLICY
from tests.support.waiting import wait_for


@contextmanager
def hearing(system: System) -> Iterator[dict[str, list[dict[str, Any]]]]:
    """What a listener has heard so far, by kind."""
    heard: dict[str, list[dict[str, Any]]] = {
        "worker-heartbeat": [], "task-received": [], "task-succeeded": [],
    }  # fmt: skip
    app = Celery(broker=system.env["REDIS_URL"])
    with app.connection_for_read() as connection:
        handlers = {kind: events.append for kind, events in heard.items()}
        receiver = app.events.Receiver(connection, handlers=handlers)
        listening = threading.Thread(target=receiver.capture, kwargs={"wakeup": False}, daemon=True)
        listening.start()
        yield heard
        receiver.should_stop = True
        listening.join(timeout=10)
    app.close()


def test_flower_hears_of_each_image_with_its_outcome(system: System) -> None:
    with hearing(system) as heard:
        system.worker()
        wait_for(lambda: heard["worker-heartbeat"], what="a sign of the worker: we hear it")
        ids = {str(system.client.submit(system.image(f"i{n}", (n, 0, n)), POLICY).id) for n in range(10)}
        system.wait_for_counts(done=10)
        wait_for(
            lambda: {event["uuid"] for event in heard["task-succeeded"]} == ids, what="an event for each"
        )
    assert {event["uuid"] for event in heard["task-received"]} == ids
    assert all("safe" in event["result"] for event in heard["task-succeeded"])


def test_a_worker_that_nobody_hears_makes_no_events_of_tasks(system: System) -> None:
    """Until somebody comes: then from the next heartbeat on."""
    system.worker()
    unheard = system.client.submit(system.image("unheard"), POLICY).id
    system.wait_for_counts(done=1)
    with hearing(system) as heard:
        wait_for(lambda: heard["worker-heartbeat"], what="a heartbeat, which says that we listen")
        later = system.client.submit(system.image("later", (9, 9, 9)), POLICY).id
        wait_for(lambda: heard["task-succeeded"], what="an event of the one that we could hear")
    assert {event["uuid"] for event in heard["task-succeeded"]} == {str(later)}
    assert later != unheard

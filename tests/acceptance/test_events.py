"""What Flower hears of a worker: every task, though the worker gathers its events. About 4 s."""

import threading
from typing import Any

from celery import Celery

from tests.acceptance.conftest import System
from tests.support.ledger import POLICY
from tests.support.waiting import wait_for


def test_flower_hears_of_each_image_with_its_outcome(system: System) -> None:
    heard: dict[str, list[dict[str, Any]]] = {
        "worker-heartbeat": [], "task-received": [], "task-succeeded": [],
    }  # fmt: skip
    app = Celery(broker=system.env["REDIS_URL"])
    with app.connection_for_read() as connection:
        handlers = {kind: events.append for kind, events in heard.items()}
        receiver = app.events.Receiver(connection, handlers=handlers)
        listening = threading.Thread(target=receiver.capture, kwargs={"wakeup": False}, daemon=True)
        listening.start()
        system.worker()
        wait_for(lambda: heard["worker-heartbeat"], what="a sign of the worker: we hear it")
        ids = {str(system.client.submit(system.image(f"i{n}", (n, 0, n)), POLICY).id) for n in range(10)}
        system.wait_for_counts(done=10)
        wait_for(
            lambda: {event["uuid"] for event in heard["task-succeeded"]} == ids, what="an event for each"
        )
        receiver.should_stop = True
        listening.join(timeout=10)
    assert {event["uuid"] for event in heard["task-received"]} == ids
    assert all("safe" in event["result"] for event in heard["task-succeeded"])
    app.close()

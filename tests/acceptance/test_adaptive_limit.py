"""How many in flight: found by a real worker against a runtime that is full at a number known to the test."""

import urllib.request

from moderation.assessment import Submission
from moderation.worker_status import WorkerStatus
from tests.acceptance.conftest import System
from tests.support.waiting import wait_for
from worker.health.probe_address import probe_addresses

CAPACITY, ANSWER_S = 8, 0.2  # so 40 images/s, which a slow machine fetches, decodes and records as well
ITEMS = 1800  # some 700 are needed


def asked(pid: int, path: str) -> str:
    (port,) = [probe.port for probe in probe_addresses() if probe.pid == pid]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
        return str(answer.read().decode())


def most_at_once(system: System) -> int:
    """Images that the runtime was asked about at once, at the most."""
    spans = [(r.at_s, r.answered_at_s or float("inf")) for r in system.server.requests if r.image]
    return max(sum(begin <= at < end for begin, end in spans) for at, _ in spans)


def test_the_number_in_flight_is_found_and_celerys_concurrency_follows_it(system: System) -> None:
    system.server.script(capacity=CAPACITY, default={"kind": "verdict", "latency_s": ANSWER_S})
    system.env = {name: value for name, value in system.env.items() if name != "VETLINE_WORKER_CONCURRENCY"}
    uri = system.image("one")
    system.client.submit_many(
        Submission(uri=uri, policy="llavaguard-default", reuse=False) for _ in range(ITEMS)
    )
    worker = system.worker(VETLINE_WORKER_IN_FLIGHT_START="6")

    def status() -> WorkerStatus:
        return WorkerStatus.model_validate_json(asked(worker.pid, "/status"))

    def found() -> WorkerStatus | None:
        now = status()
        return now if now.in_flight_phase == "rest" else None

    now = wait_for(found, timeout_s=180, every_s=0.2, what="the figure")
    assert now is not None
    assert 0.96 * CAPACITY <= now.in_flight_most <= 2 * CAPACITY
    assert f"vetline_in_flight_limit {now.in_flight_most:.1f}" in asked(worker.pid, "/metrics")
    assert CAPACITY <= most_at_once(system) <= 54, "6, 12, 24 and 48 or so were tried, and no more"
    # What was taken while more were tried ends first; then whatever else is busy is under way to a slot, or from one.
    most = now.in_flight_most
    wait_for(lambda: status().in_hand <= most + 8, what="busy threads to follow the limit down")

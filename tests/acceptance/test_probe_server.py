"""A real worker's probes: what it waits for, in words, and that whatever is away costs it no restart."""

import urllib.error
import urllib.request

from moderation.worker_status import WorkerStatus
from tests.acceptance.conftest import System
from tests.support.commands import run
from tests.support.waiting import wait_for
from tests.support.worker import RunningWorker
from worker.health.probe_address import probe_addresses


def asked(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def port_of(worker: RunningWorker) -> int:
    found = wait_for(
        lambda: [d.port for d in probe_addresses() if d.pid == worker.pid], timeout_s=30, what="its note"
    )
    return int(found[0])


def test_a_worker_is_ready_while_it_would_take_an_item_and_live_throughout(system: System) -> None:
    system.server.stop_listening()
    worker = system.worker(ready=False)
    port = port_of(worker)
    assert asked(port, "/live")[0] == 200
    wait_for(lambda: "judge: " in asked(port, "/ready")[1], what="the reason on /ready")
    assert asked(port, "/ready")[0] == 503
    shown = run(system.folder, "worker-status")
    assert shown.returncode == 75, shown.stderr
    assert "judge: " in shown.stdout

    system.server.listen()
    wait_for(lambda: asked(port, "/ready") == (200, "ready\n"), timeout_s=30, what="readiness")
    system.server.script(default={"kind": "hang"})
    system.client.submit(system.image("one"), policy="llavaguard-default")
    wait_for(lambda: system.in_flight() == 1, timeout_s=30, what="the image at the runtime")
    report = WorkerStatus.model_validate_json(asked(port, "/status")[1])
    assert (report.in_hand, report.in_flight, report.in_flight_most) == (1, 1, 8)
    assert "vetline_in_flight_limit 8.0" in asked(port, "/metrics")[1]
    assert asked(port, "/ready")[0] == 200, "busy is not unwell"

    worker.process.terminate()
    wait_for(lambda: "draining: " in asked(port, "/ready")[1], what="the drain on /ready")
    assert asked(port, "/live")[0] == 200
    system.server.script(default={"kind": "verdict"})
    system.server.stop_listening()
    assert worker.stop() == 0
    assert probe_addresses() == []

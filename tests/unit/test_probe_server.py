"""Probes over HTTP, and the command that asks them."""

import json
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from moderation.worker_status import Wait, WorkerStatus
from worker.health.liveness import Liveness
from worker.health.probe_address import ProbeAddress, ProbeSettings, probe_addresses, write_probe_address
from worker.health.probe_server import ProbeServer
from worker.health.status_command import worker_status

WELL = WorkerStatus(
    name="w1",
    pid=os.getpid(),
    judge="sglang",
    version="0.1.0",
    started_at=datetime(2026, 11, 24, tzinfo=UTC),
    live=True,
    ready=True,
    in_hand=3,
    in_hand_most=36,
    in_flight=2,
    in_flight_most=32,
    in_flight_phase="up",
)
LOADING = Wait(
    name="runtime", reason="SGLang loads its weights", since=datetime(2026, 11, 24, 9, 5, tzinfo=UTC)
)
WAITS = WELL.model_copy(update={"ready": False, "waiting": (LOADING,)})
HANGS = WELL.model_copy(update={"live": False, "ready": False, "hangs": ("consumer: not heard for 40 s",)})


class Worker:
    """What a service is to its probes."""

    def __init__(self) -> None:
        self.says = WELL
        self.probes = ProbeServer(lambda: self.says, pid=os.getpid(), settings=ProbeSettings())

    def get(self, path: str, method: str = "GET") -> tuple[int, str]:
        asked = urllib.request.Request(f"http://127.0.0.1:{self.probes.port}{path}", method=method)
        try:
            with urllib.request.urlopen(asked, timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()


@pytest.fixture
def worker() -> Iterator[Worker]:
    made = Worker()
    yield made
    made.probes.stop()


def test_a_worker_that_is_well_is_live_and_ready(worker: Worker) -> None:
    assert worker.get("/live") == (200, "live\n")
    assert worker.get("/ready") == (200, "ready\n")
    assert worker.get("/ready", method="HEAD") == (200, "")


def test_one_that_waits_is_live_and_says_for_what_it_is_not_ready(worker: Worker) -> None:
    worker.says = WAITS
    assert worker.get("/live")[0] == 200
    assert worker.get("/ready") == (503, "not ready\nruntime: SGLang loads its weights\n")


def test_one_whose_loops_hang_is_neither(worker: Worker) -> None:
    worker.says = HANGS
    assert worker.get("/live") == (503, "not live\nconsumer: not heard for 40 s\n")
    assert worker.get("/ready")[0] == 503


def test_status_is_the_report_and_metrics_are_those_of_this_process(worker: Worker) -> None:
    status, body = worker.get("/status")
    assert (status, WorkerStatus.model_validate_json(body)) == (200, WELL)
    status, body = worker.get("/metrics")
    assert status == 200
    assert "python_info" in body
    assert worker.get("/secrets")[0] == 404


def test_workers_that_want_the_same_port_do_not_clash(worker: Worker) -> None:
    second = ProbeServer(lambda: WELL, pid=os.getpid(), settings=ProbeSettings(port=worker.probes.port))
    try:
        assert second.port != worker.probes.port
        assert {probe.port for probe in probe_addresses()} == {second.port, worker.probes.port}
    finally:
        second.stop()
    assert [probe.port for probe in probe_addresses()] == [worker.probes.port]


def test_what_a_killed_worker_left_behind_is_forgotten(tmp_path: Path) -> None:
    nobody = int(Path("/proc/sys/kernel/pid_max").read_text()) + 1
    left = write_probe_address(ProbeAddress(pid=nobody, address="127.0.0.1", port=9465))
    assert left is not None
    assert probe_addresses() == []
    assert not left.exists()


@pytest.mark.parametrize(
    ("says", "code", "live_code", "words"),
    [
        (WELL, 0, 0, "ready; 3 of 36 in hand, 2 of 32 asked (up)"),
        (WAITS, 75, 0, "  runtime: SGLang loads its weights (since 09:05:00 UTC)"),
        (HANGS, 1, 1, "  consumer: not heard for 40 s"),
    ],
    ids=["ready", "waits", "hangs"],
)
def test_worker_status_finds_the_worker_and_says_how_it_is(
    worker: Worker,
    capsys: pytest.CaptureFixture[str],
    says: WorkerStatus,
    code: int,
    live_code: int,
    words: str,
) -> None:
    worker.says = says
    assert worker_status(port=None, live_only=False, as_json=False) == code
    assert words in capsys.readouterr().out
    assert worker_status(port=worker.probes.port, live_only=True, as_json=True) == live_code
    (shown,) = json.loads(capsys.readouterr().out)
    assert shown == json.loads(says.model_dump_json())


def test_no_worker_is_not_a_ready_worker(capsys: pytest.CaptureFixture[str]) -> None:
    assert worker_status(port=None, live_only=False, as_json=False) == 1
    assert capsys.readouterr().out == "no worker runs here\n"


def test_a_worker_that_does_not_answer_is_not_well(
    worker: Worker, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    port = worker.probes.port
    worker.probes.stop()
    monkeypatch.setenv("VETLINE_PROBE_PORT", str(port))
    assert worker_status(port=None, live_only=True, as_json=False) == 1
    assert capsys.readouterr().out == f"no worker answers on port {port}\n"


def test_a_loop_is_well_as_long_as_it_is_heard_in_time() -> None:
    now = 0.0
    liveness = Liveness(now=lambda: now)
    liveness.beat("consumer", 30)
    liveness.beat("sweeper")
    now = 29
    assert liveness.silent() == ()
    now = 41
    assert liveness.silent() == ("consumer: not heard for 41 s",)
    liveness.beat("consumer", 30)
    assert liveness.silent() == ()
    now = 200
    liveness.forget("consumer")
    assert liveness.silent() == ("sweeper: not heard for 200 s",)

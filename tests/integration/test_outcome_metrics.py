"""What a worker counts, on the whole path in this process: real ledger and Redis, a scripted SGLang over HTTP."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from prometheus_client import REGISTRY
from sqlalchemy import Engine

from tests.support.ledger import submitted
from tests.support.sglang_server import ScriptedServer
from tests.support.waiting import wait_for
from worker.events.outcome import in_words
from worker.service import WorkerService
from worker.settings import WorkerSettings


class Since:
    """How much a metric has grown since this was made: the registry is the process's own."""

    def __init__(self) -> None:
        self._before = self._now()

    def grown(self, name: str, **labels: str) -> float:
        key = (name, frozenset(labels.items()))
        return self._now().get(key, 0.0) - self._before.get(key, 0.0)

    def by(self, name: str, label: str) -> dict[str, float]:
        """What has grown, by one of its labels."""
        found: dict[str, float] = {}
        for (sample, labels), value in self._now().items():
            if sample == name and (more := value - self._before.get((sample, labels), 0.0)):
                found[dict(labels)[label]] = found.get(dict(labels)[label], 0.0) + more
        return found

    @staticmethod
    def _now() -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        return {(s.name, frozenset(s.labels.items())): s.value for f in REGISTRY.collect() for s in f.samples}


@pytest.fixture
def service(
    ledger: Engine, services_env: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[WorkerService]:
    monkeypatch.setenv("VETLINE_FETCH_FILE_ROOTS", str(tmp_path))
    with ScriptedServer() as server:
        settings = WorkerSettings(name="counted", sglang_url=(server.url,), concurrency=2)
        running = WorkerService(services_env["DATABASE_URL"], services_env["REDIS_URL"], settings)
        running.start(leave=lambda _: None)
        assert running.intake_gate.wait(30)
        yield running
        running.intake_gate.stop()  # not close: that ends the process, in a while
        running.stop()


@pytest.fixture
def picture(tmp_path: Path) -> str:
    Image.new("RGB", (32, 24), (200, 120, 40)).save(tmp_path / "a.png")
    return f"file://{tmp_path}/a.png"


def test_an_image_that_is_judged_is_counted_at_every_step(
    service: WorkerService, ledger: Engine, picture: str
) -> None:
    since = Since()
    assert in_words(service.work(submitted(ledger, picture))) == "safe"
    assert since.grown("vetline_claimed_total") == 1
    assert since.by("vetline_step_seconds_count", "step") == dict.fromkeys(
        ("claim", "fetch", "decode", "judge", "record"), 1
    )
    assert since.grown("vetline_attempts_total", outcome="done", code="none") == 1
    assert since.by("vetline_verdicts_total", "rating") == {"Safe": 1}
    assert since.by("vetline_asks_total", "rung") == {"strict": 1}


def test_pixels_that_are_known_ask_nobody_and_are_counted_as_reused(
    service: WorkerService, ledger: Engine, picture: str
) -> None:
    service.work(submitted(ledger, picture))
    since = Since()
    service.work(submitted(ledger, picture))
    assert since.by("vetline_verdicts_total", "reused") == {"yes": 1}
    assert since.by("vetline_asks_total", "rung") == {}


def test_failures_are_counted_by_code_and_by_what_came_of_them(
    service: WorkerService, ledger: Engine, tmp_path: Path
) -> None:
    since = Since()
    service.work(submitted(ledger, f"file://{tmp_path}/gone.png"))
    service.work(submitted(ledger, "http://127.0.0.1:1/a.png"))
    assert since.by("vetline_attempts_total", "code") == {"not_found": 1, "blocked_address": 1}
    assert since.by("vetline_attempts_total", "outcome") == {"failed": 2}
    assert since.by("vetline_verdicts_total", "rating") == {}


def test_a_message_whose_row_is_not_due_is_counted(
    service: WorkerService, ledger: Engine, picture: str
) -> None:
    id_ = submitted(ledger, picture)
    service.work(id_)
    since = Since()
    assert in_words(service.work(id_)) == "not_due"
    assert since.grown("vetline_not_due_total") == 1
    assert since.grown("vetline_claimed_total") == 0


def test_a_worker_shows_itself_and_its_sweeps(service: WorkerService) -> None:
    since = Since()
    wait_for(lambda: since.grown("vetline_sweeps_total", result="swept") > 0, timeout_s=30, what="a sweep")
    assert REGISTRY.get_sample_value("vetline_gate_open") == 1
    assert REGISTRY.get_sample_value("vetline_busy_threads_limit") == 2
    infos = [s.labels for f in REGISTRY.collect() for s in f.samples if s.name == "vetline_worker_info"]
    assert "sglang" in [info["judge"] for info in infos if info["worker"] == "counted"]

"""The supervisor against a real SGLang on a CPU: start, canary, a scheduler killed, recovery, stop.

VETLINE_TEST_SGLANG_CPU=FOLDER  holds the server (see tests/support/sglang_cpu.py)

pytest -m sglang tests/integration/test_runtime_sglang.py
"""

import os
import signal
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import psutil
import pytest

from intake.picture import View
from moderation.errors import RuntimeUnavailable, VetlineError
from moderation.policy import builtin_policies
from tests.support.waiting import wait_for
from worker.health.readiness import Readiness
from worker.judges.settings import SglangSettings
from worker.runtime.canary import picture
from worker.runtime.judge import RuntimeJudge
from worker.runtime.settings import RuntimeSettings

FOLDER = os.environ.get("VETLINE_TEST_SGLANG_CPU")
pytestmark = [
    pytest.mark.sglang,
    pytest.mark.timeout(1500),
    pytest.mark.skipif(not FOLDER, reason="no real SGLang: set VETLINE_TEST_SGLANG_CPU to a folder with one"),
]
START_S = 500.0  # most of it imports: 60 s on two idle cores, several times that on busy ones


class Kept:
    """A judge with a server of its own, and what it was told of it."""

    def __init__(self, folder: Path) -> None:
        settings = RuntimeSettings(
            model=str(folder / "checkpoint"),
            python=folder / "venv/bin/python",
            device="cpu",
            running_requests=4,
            memory_fraction=0.3,
            flags="--dtype float16 --max-total-tokens 40000 --attention-backend torch_native --sampling-backend pytorch"
            " --disable-radix-cache --disable-overlap-schedule --skip-server-warmup",
            start_timeout_s=START_S,
            canary_timeout_s=120,
            canary_every_s=60,
        )
        self.conditions = Readiness()
        self.downs: list[RuntimeUnavailable] = []
        self.hopeless: list[VetlineError] = []
        self.judge = RuntimeJudge(settings, SglangSettings(max_new_tokens=48))
        self.judge.start(
            conditions=self.conditions, on_down=self.downs.append, on_hopeless=self.hopeless.append
        )

    def wait_until_ready(self) -> None:
        wait_for(
            lambda: self.ready() or self.hopeless,
            timeout_s=START_S,
            every_s=0.5,
            what=str(self.conditions.waiting()),
        )
        assert not self.hopeless

    def ready(self) -> bool:
        try:
            self.judge.check()
        except RuntimeUnavailable:
            return False
        return True


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> Iterator[Kept]:
    folder = Path(str(FOLDER)).resolve()
    monkeypatch.setenv("SGLANG_USE_CPU_ENGINE", "1")
    monkeypatch.setenv("PYTHONPATH", str(folder / "shim"))
    kept = Kept(folder)
    yield kept
    kept.judge.close()


def servers() -> list[psutil.Process]:
    """All processes that descend from this one and are SGLang's."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if "sglang" in " ".join(process.cmdline()):
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


def judged(judge: RuntimeJudge, number: int) -> str:
    data = picture(number)
    view = View("whole", data, "image/png", 336, 336, sha256(data).hexdigest())
    return judge.judge(view, builtin_policies()[0], timeout_s=300).rating.value


def test_a_real_server_is_started_judges_survives_its_scheduler_and_is_stopped(kept: Kept) -> None:
    kept.wait_until_ready()
    assert not kept.conditions.waiting()
    assert judged(kept.judge, 1) in ("Safe", "Unsafe")  # of random weights, under the grammar
    before = {process.pid for process in servers()}
    scheduler = next(process for process in servers() if "scheduler" in " ".join(process.cmdline()))
    scheduler.send_signal(signal.SIGKILL)
    wait_for(lambda: kept.downs, timeout_s=60, what="the loss of the server noticed")
    assert not kept.ready()
    kept.wait_until_ready()
    assert judged(kept.judge, 2) in ("Safe", "Unsafe")
    assert not before & {process.pid for process in servers()}, "nothing of the first is left"
    kept.judge.close()
    assert not servers()
    with pytest.raises(RuntimeUnavailable):
        kept.judge.check()

"""`vetline worker --gpus`: a worker and a scripted runtime on each GPU, restarted and stopped, and none left behind."""

import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.acceptance.conftest import System
from tests.support.checkpoint import write_checkpoint
from tests.support.gpus import h100s
from tests.support.sglang_child import Life, Start, starts
from tests.support.waiting import wait_for
from tests.support.worker import RunningWorker
from worker.health.probe_address import ProbeAddress, probe_addresses

GONE_S = 45.0
COUNT = 2


class Host:
    """A host with two GPUs, and the one command that runs on it."""

    def __init__(self, system: System, folder: Path) -> None:
        self.system = system
        self.plan = folder / "plan.json"
        self.plan.write_text(f"[{Life().model_dump_json()}]")
        write_checkpoint(folder / "weights")
        env = {
            "PATH": h100s(folder / "bin", COUNT),
            "VETLINE_RUNTIME_COMMAND": f"{sys.executable} -m tests.support.sglang_child --plan {self.plan}",
            "VETLINE_RUNTIME_MODEL": str(folder / "weights"),
        }
        self.command = RunningWorker(system.env | env, "--gpus", "all", log=folder / "fleet.log")

    @property
    def starts(self) -> list[Start]:
        return starts(self.plan)

    def workers(self) -> list[ProbeAddress]:
        return [probe for probe in probe_addresses() if _lives(probe.pid)]

    def runtimes(self) -> list[int]:
        return [start.pid for start in self.starts if _lives(start.pid)]

    def wait_until_both_work(self) -> None:
        def both() -> bool:
            assert self.command.process.poll() is None, self.command.text[-2000:]
            return len(self.runtimes()) == COUNT and len(self.workers()) == COUNT

        wait_for(both, timeout_s=60, what="both workers and their runtimes")

    def wait_until_gone(self) -> None:
        wait_for(
            lambda: not self.runtimes() and not self.workers(),
            timeout_s=GONE_S,
            what=f"the end of {self.runtimes()} and {self.workers()}",
        )


def _lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def gpu_of(pid: int) -> tuple[str, str]:
    env = psutil.Process(pid).environ()
    return env["CUDA_VISIBLE_DEVICES"], env["CUDA_DEVICE_ORDER"]


@pytest.fixture
def host(system: System, tmp_path: Path) -> Iterator[Host]:
    made = Host(system, tmp_path)
    yield made
    with made.command:
        pass
    made.wait_until_gone()


def test_each_gpu_has_a_worker_that_is_restarted_on_its_own_and_all_stop_together(host: Host) -> None:
    host.wait_until_both_work()
    pins = {gpu_of(pid) for pid in host.runtimes()}
    assert pins == {("0", "PCI_BUS_ID"), ("1", "PCI_BUS_ID")}
    before = {probe.pid for probe in host.workers()}

    killed = host.workers()[0].pid
    gpu = gpu_of(killed)
    psutil.Process(killed).kill()
    wait_for(
        lambda: {probe.pid for probe in host.workers()} - before and len(host.runtimes()) == COUNT,
        timeout_s=60,
        what="the worker in place of the one that was killed",
    )
    (anew,) = {probe.pid for probe in host.workers()} - before
    assert gpu_of(anew) == gpu
    assert before - {killed} == {probe.pid for probe in host.workers()} - {anew}, "the other worked on"

    ids = [
        host.system.client.submit(host.system.image(f"i{n}", (n, 9, 9)), policy="llavaguard-default")
        for n in range(6)
    ]
    host.system.wait_for_counts(done=len(ids), timeout_s=60)
    assert host.command.stop(timeout_s=GONE_S) == 0
    assert not host.runtimes()
    assert not host.workers()


def test_a_fleet_whose_parent_is_killed_leaves_nothing_behind(host: Host) -> None:
    host.wait_until_both_work()
    host.command.send(signal.SIGKILL)
    host.wait_until_gone()

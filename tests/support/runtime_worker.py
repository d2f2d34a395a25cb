"""Workers that keep an SGLang of their own, a scripted one whose lives are planned."""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import psutil
from pydantic import TypeAdapter

from tests.support.ledger import POLICY, attempts
from tests.support.sglang_child import Life, Start, starts
from tests.support.worker import RunningWorker

if TYPE_CHECKING:
    from tests.acceptance.conftest import System

# Short times; the proportions are those of the defaults.
QUICK = {
    "VETLINE_RUNTIME_RESTART_DELAY_S": "0.2",
    "VETLINE_RUNTIME_RESTART_CAP_S": "1",
    "VETLINE_RUNTIME_CANARY_EVERY_S": "0.7",
    "VETLINE_RUNTIME_CANARY_TIMEOUT_S": "1.5",
    "VETLINE_RUNTIME_MEMORY_EVERY_S": "0.2",
    "VETLINE_RUNTIME_STOP_S": "0.5",
    "VETLINE_RUNTIME_STARTS": "3",
    "VETLINE_WORKER_JUDGE_TIMEOUT_S": "6",
}
GONE_S = 5.0  # from a worker's death to the end of all that its runtime started


def after(answers: int, then: dict[str, Any], **life: Any) -> dict[str, Any]:
    """A life that answers so many requests (its start takes three) and meets all others with something else."""
    script = {"rules": [{"do": {"kind": "verdict"}, "times": answers}], "default": then}
    return {"script": script, **life}


@dataclass
class Keeper:
    """Workers whose runtimes live as planned."""

    system: "System"
    plan: Path
    started: list[RunningWorker] = field(default_factory=list)

    def worker(self, *lives: dict[str, Any], ready: bool = True, **env: str) -> RunningWorker:
        self.plans(*lives)
        named = {
            "VETLINE_RUNTIME_COMMAND": f"{sys.executable} -m tests.support.sglang_child --plan {self.plan}",
            "VETLINE_RUNTIME_MODEL": str(self.plan.parent / "weights"),
        }
        running = RunningWorker(
            self.system.env | QUICK | named | env, log=self.plan.parent / f"keeper-{len(self.started)}.log"
        )
        self.started.append(running)
        return running.wait_until_ready() if ready else running

    def plans(self, *lives: dict[str, Any]) -> None:
        """The lives of the starts to come, also of a worker that runs."""
        checked = TypeAdapter(list[Life]).validate_python(list(lives))
        self.plan.write_text("[" + ",".join(life.model_dump_json() for life in checked) + "]")

    def submit(self, count: int) -> list[UUID]:
        images = [self.system.image(f"i{n}", (n, 90, 90)) for n in range(count)]
        return [self.system.client.submit(image, POLICY).id for image in images]

    @property
    def starts(self) -> list[Start]:
        return starts(self.plan)

    def left(self) -> set[int]:
        """Processes of any start that are still there."""
        pids = {pid for start in self.starts for pid in (start.pid, *start.children)}
        return {pid for pid in pids if psutil.pid_exists(pid) and lives(pid)}

    def outcomes(self, id_: UUID) -> set[str]:
        return {attempt["outcome"] for attempt in attempts(self.system.engine, id_)}


def lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False

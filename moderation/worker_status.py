"""How a worker process is at a moment: for its probes, `vetline worker-status`, and the ledger's table of workers."""

from dataclasses import dataclass
from datetime import datetime

from pydantic import BaseModel, ConfigDict


@dataclass(frozen=True, slots=True)
class Wait:
    """One thing that a worker waits for. reason: one line for a person, without secrets.

    since: when it began, in UTC; a new reason does not change it. None where that is not known.
    """

    name: str
    reason: str
    since: datetime | None = None

    def __str__(self) -> str:
        since = f" (since {self.since:%H:%M:%S} UTC)" if self.since else ""
        return f"{self.name}: {self.reason}{since}"


class WorkerStatus(BaseModel):
    """One worker process. started_at: with its name, what tells it from one that took the name over.

    live: its loops turn; hangs says which do not. ready: it would take and finish an item now; waiting says for what
    it waits otherwise. in_hand counts busy threads, in_flight images that the judge is asked about; both with the
    most that there may be. gpu: None without one. runtime and what follows: None while it is not known.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    host: str = ""
    pid: int
    gpu: str | None = None
    judge: str
    version: str
    runtime: str | None = None
    runtime_version: str | None = None
    runtime_state: str | None = None
    model: str | None = None
    started_at: datetime
    live: bool
    ready: bool
    hangs: tuple[str, ...] = ()
    waiting: tuple[Wait, ...] = ()
    in_hand: int
    in_hand_most: int
    in_flight: int
    in_flight_most: int
    in_flight_phase: str

    @property
    def waits(self) -> tuple[Wait, ...]:
        """Why it is not ready: what hangs, then what it waits for."""
        return (*(Wait("hangs", loop) for loop in self.hangs), *self.waiting)

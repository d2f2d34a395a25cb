"""Postgres, Redis and workers for so many GPUs at full rate, day and night: the measured figures, multiplied.

Nothing here was run at more than one GPU, or 16 simulated runtimes; the page says so beside it.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from moderation.settings import LeaseSettings, LedgerSettings, QueueSettings
from producer.chunks import CHUNK
from worker.processing.item_pace import MOST_LINGER_S

RESULTS = Path(__file__).parents[1] / "results"
GPUS = (1, 16, 256)
_DAY_S = 86_400


@dataclass(frozen=True, slots=True)
class Figures:
    """What was measured. ms are of CPU, for one image; least and most are of the two ends that were seen.

    The most is one GPU's own line; the least the queue alone, with a judge that answers at once.
    """

    images_per_s: float  # of one H100
    postgres_ms: tuple[float, float]
    redis_ms: tuple[float, float]
    worker_ms: float
    sglang_ms: float
    bytes: int
    index_bytes: int
    wal_bytes: int
    message_bytes: int
    ceiling_per_s: float  # of one ledger on two cores that workers share


def read(folder: Path = RESULTS) -> Figures:
    """From queue.json, gpu-h100-line.json and sizing.json."""
    queue, line, sizing = (_json(folder / f"{name}.json") for name in ("queue", "gpu-h100-line", "sizing"))
    rounds = line["rounds"]
    cpu = next(each["cpu_ms_per_image"] for each in rounds if each["kind"] == "line")
    alone = queue["assessments"]["queue_alone"]

    def in_groups(what: str) -> float:
        return 1000 * float(alone["cores_busy"][what]) / float(alone["per_s"])

    return Figures(
        images_per_s=round(mean(each["images_per_s"] for each in rounds if each["kind"] == "bare")),
        postgres_ms=(in_groups("postgres"), cpu["postgres"]),
        redis_ms=(in_groups("redis"), cpu["redis"]),
        worker_ms=cpu["worker"] + cpu["worker's decoders"],
        sglang_ms=sum(ms for name, ms in cpu.items() if name.startswith("sglang")),
        bytes=sizing["bytes"],
        index_bytes=sizing["index_bytes"],
        wal_bytes=sizing["wal_bytes"],
        message_bytes=sizing["message_bytes"],
        ceiling_per_s=alone["per_s"],
    )


def _json(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def table(of: Figures) -> str:
    """Markdown, a column for each number of GPUs."""
    head = "| | " + " | ".join(f"{gpus} GPU{'s' if gpus > 1 else ''}" for gpus in GPUS) + " |"
    rows = [(name, [show(of, gpus) for gpus in GPUS]) for name, show in _ROWS]
    lines = [f"| {name} | {' | '.join(cells)} |" for name, cells in rows]
    return "\n".join([head, "| --- | --- | --- | --- |", *lines])


def _rate(of: Figures, gpus: int) -> float:
    return of.images_per_s * gpus


def _cores(ms: float | tuple[float, float], rate: float) -> str:
    low, high = ms if isinstance(ms, tuple) else (ms, ms)
    shown = [
        f"{each * rate / 1000:.2g}" if each * rate < 10_000 else f"{each * rate / 1000:.0f}"
        for each in (low, high)
    ]
    return shown[0] if shown[0] == shown[1] else f"{shown[0]} to {shown[1]}"


def _size(count: float) -> str:
    for unit, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "KB")):
        if count >= unit:
            return f"{count / unit:.2g} {name}" if count / unit < 100 else f"{count / unit:.0f} {name}"
    return f"{count:.0f} B"


def _commits(of: Figures, gpus: int) -> str:
    """Records as far as they wait for one another and a beat for each worker.

    And, at the least, a claim for as many as a message rings, of what was submitted by the thousand; at the most a claim
    and a submission for each.
    """
    each = min(of.images_per_s, 1 / MOST_LINGER_S) + 1 / LeaseSettings().beat_s
    low = gpus * (each + of.images_per_s / QueueSettings().bundle + of.images_per_s / CHUNK)
    high = gpus * (each + 2 * of.images_per_s)
    return f"{low:,.0f} to {high:,.0f}"


def _connections(_: Figures, gpus: int) -> str:
    return f"{gpus * LedgerSettings().pool_size:,}"


def _redis_memory(of: Figures, _: int) -> str:
    return _size(2 * QueueSettings().depth * of.message_bytes)


_ROWS = (
    ("images/s", lambda of, gpus: f"{_rate(of, gpus):,.0f}"),
    ("of what one ledger was seen to write", lambda of, gpus: f"{_rate(of, gpus) / of.ceiling_per_s:.0%}"),
    ("verdicts a day", lambda of, gpus: f"{_rate(of, gpus) * _DAY_S / 1e6:,.1f} million"),
    ("Postgres: cores", lambda of, gpus: _cores(of.postgres_ms, _rate(of, gpus))),
    ("disk, a day", lambda of, gpus: _size(_rate(of, gpus) * _DAY_S * of.bytes)),
    ("of it indexes", lambda of, gpus: _size(_rate(of, gpus) * _DAY_S * of.index_bytes)),
    ("write-ahead log, a second", lambda of, gpus: _size(_rate(of, gpus) * of.wal_bytes)),
    ("commits/s, each a flush at the most", _commits),
    ("connections of workers", _connections),
    ("Redis: cores, of the one that it can use", lambda of, gpus: _cores(of.redis_ms, _rate(of, gpus))),
    ("memory of its messages", _redis_memory),
    ("workers and decoders: cores", lambda of, gpus: _cores(of.worker_ms, _rate(of, gpus))),
    ("SGLang's processes: cores", lambda of, gpus: _cores(of.sglang_ms, _rate(of, gpus))),
)

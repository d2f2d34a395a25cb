"""Settings of the worker itself; fetching, decoding and each judge have their own."""

import os
import socket
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from worker.gpu.name import gpu_name


def split_names(text: str) -> tuple[str, ...]:
    """`a, b` -> ("a", "b"): lists in the environment are written with commas."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _as_names(value: object) -> object:
    return split_names(value) if isinstance(value, str) else value


class WorkerSettings(BaseSettings):
    """How much a worker takes on, and how long it waits."""

    model_config = SettingsConfigDict(env_prefix="VETLINE_WORKER_", frozen=True, extra="ignore")

    judge: Literal["sglang", "open-nsfw"] = "sglang"
    # Images in hand at once. None: as many as the CPU has cores for its classifier; for a runtime what is found.
    concurrency: int | None = Field(default=None, gt=0)
    # Where it is found: images that the runtime is asked about at once, to begin with, and at most. An H100 gave 57.2
    # images/s with 256 in flight and 58.1 with 512 (bench/gpu/NOTES.md), at twice the wait.
    in_flight_start: int = Field(32, gt=0)
    in_flight_most: int = Field(256, gt=0)
    # Servers that run already, in place of VETLINE_SGLANG_URL; none: the worker starts one of its own.
    sglang_url: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_as_names)] = ()
    name: str = ""  # shown in Flower and kept with each attempt; "" makes one from judge, GPU, pid and host
    judge_timeout_s: float = Field(120, gt=0)  # wall clock for one image under one policy, the whole ladder
    drain_s: float = Field(25, gt=0)  # from SIGTERM to giving back what is still in hand: gone within 30 s
    stalled_s: float = Field(30, gt=0)  # rows wait in Redis and none arrived here for so long: reconnect

    @property
    def finds_in_flight(self) -> bool:
        """Whether the number in flight is found, rather than said."""
        return self.concurrency is None and self.judge == "sglang"

    @property
    def threads(self) -> int:
        """Images in hand at once, at most; with room for a quarter that are fetched, decoded or recorded."""
        if self.concurrency is not None:
            return self.concurrency
        return self.in_flight_most * 5 // 4 if self.finds_in_flight else max(2, os.cpu_count() or 2)

    @property
    def node(self) -> str:
        """Host and GPU, so that Flower and `vetline explain` say where an image was judged."""
        gpu = gpu_name() if self.judge != "open-nsfw" else ""
        what = "-".join(filter(None, (self.judge, gpu, str(os.getpid()))))
        return self.name or f"{what}@{socket.gethostname()}"

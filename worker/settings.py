"""Settings of the worker itself; fetching, decoding and each judge have their own."""

import os
import socket
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from worker.gpu import gpu_name


class WorkerSettings(BaseSettings):
    """How much a worker takes on, and how long it waits."""

    model_config = SettingsConfigDict(env_prefix="VETLINE_WORKER_", frozen=True, extra="ignore")

    judge: Literal["sglang", "open-nsfw"] = "sglang"
    # Enough to keep a runtime's batches full (rate x latency); the CPU classifier has two cores, not a GPU.
    concurrency: int | None = Field(default=None, gt=0)
    sglang_url: str | None = None  # in place of VETLINE_SGLANG_URL
    name: str = ""  # shown in Flower and kept with each attempt; "" makes one from judge, GPU, pid and host
    judge_timeout_s: float = Field(120, gt=0)  # wall clock for one image under one policy, the whole ladder
    drain_s: float = Field(25, gt=0)  # from SIGTERM to giving back what is still in hand: gone within 30 s
    stalled_s: float = Field(30, gt=0)  # rows wait in Redis and none arrived here for so long: reconnect

    @property
    def threads(self) -> int:
        if self.concurrency is not None:
            return self.concurrency
        return 128 if self.judge == "sglang" else max(2, os.cpu_count() or 2)

    @property
    def node(self) -> str:
        """Host and GPU, so that Flower and `vetline explain` say where an image was judged."""
        gpu = gpu_name() if self.judge != "open-nsfw" else ""
        what = "-".join(filter(None, (self.judge, gpu, str(os.getpid()))))
        return self.name or f"{what}@{socket.gethostname()}"

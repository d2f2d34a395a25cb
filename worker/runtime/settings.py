"""Settings of the server that a worker starts for itself, read once from VETLINE_RUNTIME_*."""

import shlex
import sys
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, AliasChoices, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from moderation.errors import BadSetting
from moderation.policy import CONTEXT_TOKENS
from worker.runtime.plugin import launch


def _is_command_line(text: str) -> str:
    shlex.split(text)  # raises ValueError for a quotation that does not end
    return text


CommandLine = Annotated[str, AfterValidator(_is_command_line)]

_DAY_S = 86400.0


class RuntimeSettings(BaseSettings):
    """What is started, with which flags, how it is watched, and what ends it."""

    model_config = SettingsConfigDict(
        env_prefix="VETLINE_RUNTIME_", frozen=True, extra="ignore", populate_by_name=True
    )

    # --- what is started
    model: str = "AIML-TUDA/LlavaGuard-v1.2-0.5B-OV"  # a repository on Hugging Face, or a folder
    revision: str = "main"  # of the repository: a branch, a tag or a commit
    tower: str | None = None  # the vision tower in place of the one that the model's configuration names
    architectures: tuple[str, ...] = ("LlavaQwenForCausalLM",)  # what the configuration may say that it is
    # Download nothing: what is not there is an error.
    offline: bool = Field(
        default=False, validation_alias=AliasChoices("VETLINE_RUNTIME_OFFLINE", "HF_HUB_OFFLINE")
    )
    hub_token: SecretStr | None = Field(
        default=None, validation_alias=AliasChoices("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
    )
    python: Path = Path(sys.executable)  # the interpreter that has sglang
    command: CommandLine = ""  # in place of `PYTHON -m sglang.launch_server`; our flags follow it
    flags: CommandLine = ""  # more flags for it, after ours, so that they win
    # Our image processor and model class: 58 images/s instead of 2.3 (bench/gpu/NOTES.md).
    plugin: bool = True
    device: Literal["cuda", "cpu"] = "cuda"

    # --- flags with a meaning of their own
    # Policies are refused at the registry where they would not fit it.
    context_tokens: int = Field(CONTEXT_TOKENS, gt=0)
    running_requests: int = Field(launch.RUNNING, gt=0)  # decoding together; see plugin/launch.py
    queued_requests: int = Field(1024, gt=0)  # a bound that is never met: we keep far fewer in flight
    prefill_tokens: int = Field(launch.PREFILL_TOKENS, gt=0)  # eight 640x480 images a batch
    # GPU memory for weights and cache. The tower's activations (2.5 GB) and the graphs need the rest.
    memory_fraction: float = Field(0.7, gt=0, lt=1)
    watchdog_s: int = Field(120, gt=0)  # a scheduler stuck in one step for so long ends its server
    # An image's wait for the image pool; SGLang's 10 s are too few at 64.
    image_timeout_s: int = Field(60, gt=0)

    # --- its start
    # 60 to 170 s on an H100; kernels compiled anew take many minutes.
    start_timeout_s: float = Field(1200, gt=0)
    first_answer_s: float = Field(300, gt=0)  # the first image compiles what is left to compile
    starts: int = Field(5, gt=0)  # failed in a row, and the worker ends with exit code 75
    restart_delay_s: float = Field(1, gt=0)  # doubles with each failure in a row
    restart_cap_s: float = Field(60, gt=0)
    steady_s: float = Field(300, gt=0)  # well for so long: the next failure is the first one again

    # --- its watch
    canary_every_s: float = Field(30, gt=0)  # an image of our own where none was answered for so long
    # p95 of an image is 9.6 s with 512 in flight; a judge gives an image up after 120 s (WorkerSettings).
    canary_timeout_s: float = Field(60, gt=0)
    canary_set: Path | None = None  # JSON lines {"image": file, "rating": "Safe" or "Unsafe", "policy": name}
    canary_agreement: float = Field(0.75, ge=0, le=1)  # below it, this is not the model that was asked for

    # --- planned recycling, drained first. A cold start of 3 minutes a day costs 0.2 %.
    recycle_images: int = Field(5_000_000, gt=0)  # a day at full rate
    recycle_s: float = Field(_DAY_S, gt=0)  # give or take a tenth, so that a fleet does not recycle at once
    # Beyond what it held when it became ready; reports of leaks are of gigabytes a day.
    growth_mib: int = Field(16384, gt=0)
    # 2,500 for the tower's activations come with the first full batch.
    gpu_growth_mib: int = Field(8192, gt=0)
    memory_every_s: float = Field(10, gt=0)
    drain_s: float = Field(60, gt=0)  # for what is in flight, before a planned stop

    # --- its end
    # From SIGTERM to SIGKILL. It looks every 5 s whether it is drained, and then takes some for its own children.
    stop_s: float = Field(12, gt=0)

    @property
    def argv(self) -> list[str]:
        """What is started, without its flags."""
        return shlex.split(self.command) or [str(self.python), "-m", "sglang.launch_server"]


class HubSettings(BaseSettings):
    """Where Hugging Face's cache is, by its own names."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore")

    cache: Path | None = Field(
        default=None, validation_alias=AliasChoices("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE")
    )
    home: Path | None = Field(default=None, validation_alias="HF_HOME")
    xdg: Path | None = Field(default=None, validation_alias="XDG_CACHE_HOME")

    @property
    def folder(self) -> Path:
        home = self.home or (self.xdg or Path.home() / ".cache") / "huggingface"
        return (self.cache or home / "hub").expanduser()


def runtime_settings() -> RuntimeSettings:
    """Raises BadSetting, naming the variable."""
    try:
        return RuntimeSettings()
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = str(first["loc"][0]) if first["loc"] else "settings"
        variable = name if name.isupper() else f"VETLINE_RUNTIME_{name.upper()}"
        raise BadSetting(f"{variable}: {first['msg']}") from error

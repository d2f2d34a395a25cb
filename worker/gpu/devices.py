"""The GPUs of this host, as the driver's own nvidia-smi lists them: no library has to be loaded for it."""

import csv
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from moderation.errors import BadSetting, Misuse

_ASK = (
    "nvidia-smi",
    "--query-gpu=index,uuid,name,memory.total,driver_version,compute_cap,memory.used",
    "--format=csv,noheader,nounits",
)
_ANSWER_S = 20.0  # seconds are usual where the driver was not loaded


class GpuMissing(Misuse):
    """The driver, or a GPU that was asked for, is not there."""

    code = "gpu_missing"


class VisibleSettings(BaseSettings):
    """CUDA's own variable, as whoever started us set it: "0", "GPU-8a5..." or "0,1"."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore")

    visible: str | None = Field(default=None, validation_alias="CUDA_VISIBLE_DEVICES")


@dataclass(frozen=True, slots=True)
class Gpu:
    """index: nvidia-smi's, by PCI bus. memory_mib: all of it. compute: (9, 0) on an H100."""

    index: int
    uuid: str
    name: str
    memory_mib: int
    driver: str
    compute: tuple[int, int]
    used_mib: int = 0

    @property
    def pin(self) -> dict[str, str]:
        """Variables by which CUDA sees this one alone. By default it numbers them otherwise, the fastest first."""
        return {"CUDA_VISIBLE_DEVICES": str(self.index), "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


def gpus() -> list[Gpu]:
    """All of this host. Raises GpuMissing, with what the driver said."""
    if shutil.which(_ASK[0]) is None:
        raise GpuMissing("no nvidia-smi is on PATH: this machine has no NVIDIA driver")
    try:
        asked = subprocess.run(_ASK, capture_output=True, text=True, timeout=_ANSWER_S, check=False)
    except (subprocess.TimeoutExpired, OSError) as exc:
        raise GpuMissing(f"nvidia-smi does not answer ({type(exc).__name__}): look at the driver") from exc
    devices = list(_read(asked.stdout)) if asked.returncode == 0 else []
    if not devices:
        output = (asked.stderr or asked.stdout).strip().splitlines()
        raise GpuMissing(f"nvidia-smi lists no GPU: {output[-1] if output else 'it says nothing'}")
    return devices


def chosen(wanted: str) -> list[Gpu]:
    """Those that `all`, or a list such as `0,2`, names. Raises BadSetting, or GpuMissing.

    `all` keeps to CUDA_VISIBLE_DEVICES where that is set.
    """
    devices = gpus()
    if wanted.strip() == "all":
        visible = VisibleSettings().visible
        if visible is None:
            return devices
        if not (names := _words(visible)):
            raise GpuMissing("CUDA_VISIBLE_DEVICES is empty: no GPU may be used")
        return [_named(name, devices) for name in names]
    words = _words(wanted)
    if not words or len(set(words)) < len(words):
        raise BadSetting(f"--gpus {wanted}: say `all`, or numbers with commas between them, each once")
    return [_named(word, devices) for word in words]


def _words(text: str) -> list[str]:
    return [word for part in text.split(",") if (word := part.strip())]


def _named(word: str, devices: list[Gpu]) -> Gpu:
    for gpu in devices:
        if word == str(gpu.index) or (word.startswith("GPU-") and gpu.uuid.startswith(word)):
            return gpu
    raise GpuMissing(f"no GPU {word} here: there are {', '.join(str(gpu.index) for gpu in devices)}")


def _read(text: str) -> Iterator[Gpu]:
    for row in csv.reader(text.splitlines(), skipinitialspace=True):
        if len(row) == 7 and row[0].isdigit():
            index, uuid, name, memory, driver, compute, used = row
            major, _, minor = compute.partition(".")
            yield Gpu(int(index), uuid, name, _int(memory), driver, (_int(major), _int(minor)), _int(used))


def _int(text: str) -> int:
    """0 for "[N/A]", which unified memory and old drivers give."""
    return int(text) if text.strip().isdigit() else 0

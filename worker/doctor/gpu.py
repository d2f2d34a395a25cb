"""What a GPU host needs so that its workers can start SGLang, each with how to mend it."""

import subprocess
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

from moderation.services.child import free_port
from worker.doctor.check import Check, CheckState
from worker.doctor.weights import model
from worker.gpu.devices import Gpu, GpuMissing, gpus
from worker.health.probe_address import ProbeSettings, probe_addresses
from worker.runtime import versions
from worker.runtime.settings import RuntimeSettings

_OLDEST_COMPUTE = (7, 5)  # SGLang's own kernels are built for no older one
_FAST_COMPUTE = (8, 0)  # FlashAttention; what is older falls back to Triton
_LEAST_GPU_MIB = 8_000  # 2 GB of weights, 2.5 GB of the tower's activations, graphs and a cache
_USED_SHARE = 0.25  # RuntimeSettings.memory_fraction is 0.7 of all of it
_LEAST_MEMORY = 16 << 30  # SGLang's three processes, image workers, and our own
# The oldest driver for a CUDA runtime, by NVIDIA's table of minor version compatibility.
_DRIVERS = {13: 580, 12: 525}
_IMPORT_S = 120.0
_INSTALL = "pip install 'vetline[worker,gpu]'"


def gpu_host(runtime: RuntimeSettings) -> Iterator[Check]:
    """Each check in turn. For workers that start SGLang; nothing is started or downloaded."""
    yield from _gpus(runtime)
    yield from _sglang(runtime.python)
    yield from model(runtime)
    yield _memory()
    yield _ports()


def only_gpus() -> Check:
    """For workers that need none: whether one is there."""
    try:
        devices = gpus()
    except GpuMissing as exc:
        return Check("gpu", CheckState.NOTE, str(exc), "use --judge open-nsfw")
    return Check("gpu", CheckState.OK, "; ".join(map(_shown, devices)))


def _gpus(runtime: RuntimeSettings) -> Iterator[Check]:
    if runtime.device == "cpu":
        yield Check("gpu", CheckState.NOTE, "SGLang would run on the CPU, at seconds for an image")
        return
    try:
        devices = gpus()
    except GpuMissing as exc:
        advice = "install NVIDIA's driver, or use --judge open-nsfw or --sglang-url"
        yield Check("gpu", CheckState.PROBLEM, str(exc), advice)
        return
    yield Check("gpu", CheckState.OK, "; ".join(map(_shown, devices)))
    yield _driver(devices[0].driver)
    for gpu in devices:
        yield from _fitness(gpu)


def _shown(gpu: Gpu) -> str:
    return f"{gpu.index}: {gpu.name}, {gpu.memory_mib / 1024:.0f} GiB"


def _driver(installed: str) -> Check:
    cuda = _cuda()
    oldest = _DRIVERS.get(cuda or 0)
    major = installed.partition(".")[0]
    if oldest is None or not major.isdigit():
        return Check("driver", CheckState.OK, installed)
    if int(major) < oldest:
        says = f"{installed} is too old for CUDA {cuda}, which is installed"
        return Check("driver", CheckState.PROBLEM, says, f"install driver {oldest} or newer")
    return Check("driver", CheckState.OK, f"{installed}, for CUDA {cuda}")


def _cuda() -> int | None:
    """The major version of the CUDA runtime that torch brought."""
    for package in ("nvidia-cuda-runtime", "nvidia-cuda-runtime-cu12"):
        try:
            return int(version(package).partition(".")[0])
        except (PackageNotFoundError, ValueError):
            continue
    return None


def _fitness(gpu: Gpu) -> Iterator[Check]:
    name, compute = f"gpu {gpu.index}", ".".join(map(str, gpu.compute))
    if (0, 0) < gpu.compute < _OLDEST_COMPUTE:
        yield Check(
            name, CheckState.PROBLEM, f"compute capability {compute}: SGLang needs 7.5", "use another GPU"
        )
    elif (0, 0) < gpu.compute < _FAST_COMPUTE:
        yield Check(name, CheckState.NOTE, f"compute capability {compute}: judges, but slowly")
    if 0 < gpu.memory_mib < _LEAST_GPU_MIB:
        yield Check(name, CheckState.PROBLEM, f"{gpu.memory_mib} MiB are too few", f"need {_LEAST_GPU_MIB}")
    elif gpu.used_mib > _USED_SHARE * gpu.memory_mib > 0 and not probe_addresses():
        says = f"{gpu.used_mib} of {gpu.memory_mib} MiB are held by other programs"
        yield Check(
            name, CheckState.PROBLEM, says, "end them (nvidia-smi shows which), or choose with --gpus"
        )


def _sglang(python: Path) -> Iterator[Check]:
    installed = versions.installed(python)
    if installed is None:
        yield Check(
            "sglang", CheckState.PROBLEM, f"{python} has none", f"{_INSTALL}, or VETLINE_RUNTIME_PYTHON"
        )
        return
    if problem := _import_problem(python):
        yield Check(
            "sglang", CheckState.PROBLEM, f"{installed} cannot be imported: {problem}", f"{_INSTALL} anew"
        )
    elif not versions.traits_of(installed).known:
        yield Check("sglang", CheckState.NOTE, f"{installed} was never tried here", "0.5.16 and 0.5.23 were")
    else:
        yield Check("sglang", CheckState.OK, installed)


def _import_problem(python: Path) -> str | None:
    command = [str(python), "-c", "import sglang"]
    try:
        tried = subprocess.run(command, capture_output=True, text=True, timeout=_IMPORT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as exc:
        return type(exc).__name__
    lines = tried.stderr.strip().splitlines()
    return None if tried.returncode == 0 else (lines[-1] if lines else f"exit code {tried.returncode}")


def _memory() -> Check:
    free = psutil.virtual_memory().available
    says = f"{free / (1 << 30):.0f} GiB free"
    if free < _LEAST_MEMORY:
        return Check("memory", CheckState.PROBLEM, says, f"{_LEAST_MEMORY >> 30} GiB for each GPU")
    return Check("memory", CheckState.OK, says)


def _ports() -> Check:
    """SGLang takes a fresh port at each start; only the probes' may be asked for."""
    try:
        free_port()
    except OSError as exc:
        return Check("ports", CheckState.PROBLEM, f"nothing can listen on loopback: {exc.strerror}")
    wanted = ProbeSettings().port
    return Check("ports", CheckState.OK, f"loopback, and {wanted} for probes" if wanted else "loopback")

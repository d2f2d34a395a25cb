"""What would keep SGLang from ever starting here, said in one line before anything is started."""

from pathlib import Path

from moderation.errors import BadSetting
from worker.judges.factory import keeps_runtime
from worker.runtime import canary_set, versions, weights
from worker.runtime.settings import RuntimeSettings, runtime_settings
from worker.settings import WorkerSettings

_DRIVERS = (Path("/dev/nvidiactl"), Path("/dev/dxg"))  # Linux; Windows' Linux
_ELSE = "or name a server that runs in --sglang-url, or judge on the CPU with --judge open-nsfw"


def preflight(settings: WorkerSettings) -> None:
    """Raises BadSetting. Nothing is looked at for a worker that starts no server of its own."""
    if not keeps_runtime(settings):
        return
    runtime = runtime_settings()
    if not runtime.command:
        _check_machine(runtime)
    weights.nearest_lack(runtime)
    if runtime.canary_set is not None:
        canary_set.read(runtime.canary_set)


def _check_machine(runtime: RuntimeSettings) -> None:
    if versions.installed(runtime.python) is None:
        raise BadSetting(
            f"{runtime.python} has no sglang: pip install 'vetline[worker,gpu]' on a GPU host, {_ELSE}"
        )
    if runtime.device == "cuda" and not any(path.exists() for path in _DRIVERS):
        raise BadSetting(f"no NVIDIA GPU is seen here: mend its driver, {_ELSE}")

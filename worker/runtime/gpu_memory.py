"""How much GPU memory some processes hold, where NVIDIA's library can tell."""

from collections.abc import Set
from typing import Any

import structlog

log = structlog.get_logger()


class GpuMemory:
    """Asks NVML, which comes with the extra `gpu`. Without it, or in a container that hides pids, it knows nothing."""

    def __init__(self) -> None:
        self._nvml: Any = None
        try:
            import pynvml

            self._nvml = pynvml
            pynvml.nvmlInit()
        except ImportError:
            log.info("gpu_memory_unknown", reason="pynvml is not installed")
        except self._error as error:
            log.info("gpu_memory_unknown", reason=str(error))
            self._nvml = None

    def of(self, pids: Set[int]) -> int | None:
        """MiB that these processes hold on all GPUs; None where that is not known."""
        if self._nvml is None:
            return None
        try:
            return self._sum(pids)
        except self._error as error:
            log.info("gpu_memory_unknown", reason=str(error))
            return None

    @property
    def _error(self) -> type[Exception]:
        error: type[Exception] = self._nvml.NVMLError
        return error

    def _sum(self, pids: Set[int]) -> int | None:
        held = [
            process.usedGpuMemory
            for number in range(self._nvml.nvmlDeviceGetCount())
            for process in self._nvml.nvmlDeviceGetComputeRunningProcesses(
                self._nvml.nvmlDeviceGetHandleByIndex(number)
            )
            if process.pid in pids and process.usedGpuMemory is not None
        ]
        return sum(held) >> 20 if held else None

"""What nvidia-smi says of the GPU while something runs: busy share, power, clock."""

import contextlib
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field

FIELDS = "utilization.gpu,power.draw,clocks.sm"


@dataclass(slots=True)
class GpuUse:
    """Means over the samples, filled when the `with` block ends; None where there is no nvidia-smi."""

    busy_percent: float | None = None
    power_w: float | None = None
    clock_mhz: float | None = None
    samples: int = 0
    lines: list[str] = field(default_factory=list, repr=False)


@contextlib.contextmanager
def watched(every_ms: int = 200) -> Iterator[GpuUse]:
    use = GpuUse()
    command = ["nvidia-smi", f"--query-gpu={FIELDS}", "--format=csv,noheader,nounits", f"-lms={every_ms}"]
    try:
        smi = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    except FileNotFoundError:
        yield use
        return
    try:
        yield use
    finally:
        smi.terminate()
        _fill(use, smi.communicate(timeout=10)[0])


def _fill(use: GpuUse, text: str) -> None:
    rows = [line.split(",") for line in text.splitlines() if line.count(",") == 2]
    numbers = [[float(value) for value in row] for row in rows if all(_is_number(value) for value in row)]
    if numbers:
        use.samples = len(numbers)
        use.busy_percent, use.power_w, use.clock_mhz = (
            sum(column) / len(numbers) for column in zip(*numbers, strict=True)
        )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True

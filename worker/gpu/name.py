"""Which GPU this worker is for, by the driver's own files, or its nvidia-smi: no library is loaded to find out."""

import re
from functools import cache
from pathlib import Path

from worker.gpu.devices import GpuMissing, VisibleSettings, gpus

_DRIVER = Path("/proc/driver/nvidia/gpus")
_MODEL = re.compile(r"^Model:\s*(?:NVIDIA\s+)?(.+)$", re.MULTILINE)


@cache
def gpu_name(driver: Path = _DRIVER) -> str:
    """Such as "gpu0-h100"; "" on a machine without one. For names and labels: lower case, digits and dashes."""
    visible = VisibleSettings().visible
    models = [] if visible == "" else _models(driver)
    if not models:
        return ""
    which = (visible or "0").split(",")[0]
    number = int(which) if which.isdigit() and int(which) < len(models) else 0
    shown = f"gpu{which}" if which.isdigit() else which.lower()[:12]
    return f"{shown}-{_short(models[number])}" if models[number] else shown


def _models(driver: Path) -> list[str]:
    """What each GPU is called; "" for one that has no name here."""
    if files := sorted(driver.glob("*/information")):
        matches = [_MODEL.search(file.read_text()) for file in files]
        return [match[1] if match else "" for match in matches]
    try:  # Windows' Linux and some sandboxes have the driver, but none of its files
        return [gpu.name.removeprefix("NVIDIA ") for gpu in gpus()]
    except GpuMissing:
        return []


def _short(model: str) -> str:
    """h100 of "H100 80GB HBM3", rtx-4090 of "GeForce RTX 4090"."""
    words = re.findall(r"[a-z0-9]+", model.lower().replace("geforce", ""))
    return "-".join(words[:2] if len(words[0]) < 4 and len(words) > 1 and words[0].isalpha() else words[:1])

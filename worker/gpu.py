"""Which GPU this worker is for, by the driver's own files: no library is loaded to find out."""

import re
from functools import cache
from pathlib import Path

from worker.gpus import VisibleSettings

_DRIVER = Path("/proc/driver/nvidia/gpus")
_MODEL = re.compile(r"^Model:\s*(?:NVIDIA\s+)?(.+)$", re.MULTILINE)


@cache
def gpu_name(driver: Path = _DRIVER) -> str:
    """Such as "gpu0-h100"; "" on a machine without one. For names and labels: lower case, digits and dashes."""
    found = sorted(driver.glob("*/information"))
    visible = VisibleSettings().visible
    if not found or visible == "":
        return ""
    which = (visible or "0").split(",")[0]
    number = int(which) if which.isdigit() and int(which) < len(found) else 0
    shown = f"gpu{which}" if which.isdigit() else which.lower()[:12]
    model = _MODEL.search(found[number].read_text())
    return f"{shown}-{_short(model[1])}" if model else shown


def _short(model: str) -> str:
    """h100 of "H100 80GB HBM3", rtx-4090 of "GeForce RTX 4090"."""
    words = re.findall(r"[a-z0-9]+", model.lower().replace("geforce", ""))
    return "-".join(words[:2] if len(words[0]) < 4 and len(words) > 1 and words[0].isalpha() else words[:1])

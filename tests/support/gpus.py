"""A host with GPUs, as nvidia-smi would list them: a script of that name on PATH."""

import os
from pathlib import Path

_H100 = "NVIDIA H100 80GB HBM3, 81559, 580.82.07, 9.0, 4"


def nvidia_smi(folder: Path, *gpus: str, exit_code: int = 0) -> str:
    """PATH with an nvidia-smi that lists these: "NAME, MEMORY_MIB, DRIVER, COMPUTE, USED_MIB" each."""
    folder.mkdir(exist_ok=True)
    lines = []
    for index, gpu in enumerate(gpus):
        name, *rest = gpu.split(", ")
        lines.append(", ".join([str(index), f"GPU-{index}a3c", name, *rest]))
    script = folder / "nvidia-smi"
    script.write_text("#!/bin/sh\ncat <<'END'\n" + "\n".join(lines) + f"\nEND\nexit {exit_code}\n")
    script.chmod(0o755)
    return f"{folder}{os.pathsep}{os.environ['PATH']}"


def h100s(folder: Path, count: int) -> str:
    return nvidia_smi(folder, *[_H100] * count)

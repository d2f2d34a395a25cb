"""On what a result was measured."""

import importlib.metadata
import os
import platform
import subprocess
from datetime import UTC, datetime
from typing import Any

PACKAGES = (
    "sglang",
    "sglang-kernel",
    "torch",
    "triton",
    "transformers",
    "pillow",
    "xgrammar",
    "flashinfer-python",
)


def described() -> dict[str, Any]:
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "gpu": _first_line(
            "nvidia-smi", "--query-gpu=name,driver_version,power.limit", "--format=csv,noheader"
        ),
        "cpu_cores": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
        "commit": _first_line("git", "rev-parse", "HEAD"),
    }


def _first_line(*command: str) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip().splitlines()[0] if done.returncode == 0 and done.stdout.strip() else None


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None

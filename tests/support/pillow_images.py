"""Pillow's own test images, among them the files that once crashed it: from its source package, kept in .cache."""

import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

VERSION = "13.0.0"  # of the images, whichever Pillow is installed
CACHE = Path(__file__).parents[2] / ".cache"
ARCHIVE = CACHE / f"pillow-{VERSION}.tar.gz"


def download() -> str | None:
    """Why there is no archive, or None where there is one now. About a minute and 47 MB, once."""
    if ARCHIVE.exists():
        return None
    CACHE.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
    command += ["--disable-pip-version-check", "--dest", str(CACHE), f"pillow=={VERSION}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return None if ARCHIVE.exists() else f"Pillow's source package cannot be downloaded: {done.stderr[-300:]}"


def images() -> Iterator[tuple[str, bytes]]:
    """Name and bytes of each test image."""
    with tarfile.open(ARCHIVE) as archive:
        for member in archive:
            if member.isfile() and "/Tests/images/" in member.name:
                file = archive.extractfile(member)
                assert file is not None, "a regular file has contents"
                yield member.name.partition("/Tests/images/")[2], file.read()

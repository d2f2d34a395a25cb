"""The folder that a local server keeps: its secret, and who is running in it."""

import os
import secrets
import subprocess
import time
from pathlib import Path

from moderation.errors import Unavailable


def owned_folder(folder: Path) -> Path:
    """Make it, closed to other users; as root, they may pass through it but not list it (see account.py)."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o711 if os.geteuid() == 0 else 0o700)
    return folder


def private_text(path: Path, text: str) -> None:
    """Write text that only its owner may read; a reader sees the old file or the new one, never a part."""
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    new.replace(path)


def secret_in(path: Path) -> str:
    """The password kept in `path`, readable to its owner alone; made at the first call."""
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return path.read_text()
    with os.fdopen(handle, "w") as file:
        made = secrets.token_urlsafe(32)
        file.write(made)
    return made


def clear_stale_pid_file(path: Path, *programs: str, patience_s: float = 20.0) -> None:
    """Wait for a predecessor that is just stopping; remove its file where another program has its number.

    Raises Unavailable where it keeps running.
    """
    deadline = time.monotonic() + patience_s
    while path.exists():
        pid = _first_number(path)
        if running_program(pid) not in programs:
            path.unlink(missing_ok=True)
            return
        if time.monotonic() > deadline:
            raise Unavailable(f"{path.parent} is in use by {programs[0]} with process number {pid}")
        time.sleep(0.02)


def _first_number(path: Path) -> int:
    """0, which no process has, where the file is empty or gone."""
    try:
        return int(path.read_text().split()[0])
    except (FileNotFoundError, IndexError, ValueError):
        return 0


def running_program(pid: int) -> str:
    """The name of the program with that process number; empty where there is none."""
    if Path("/proc/self").exists():
        try:
            return (Path("/proc") / str(pid) / "comm").read_text().strip()
        except (FileNotFoundError, ProcessLookupError):
            return ""
    asked = subprocess.run(["ps", "-o", "comm=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return Path(asked.stdout.strip()).name

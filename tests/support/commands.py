"""Vetline's commands as a person types them, in a folder of their own."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from moderation.services.lock import is_taken
from tests.support.waiting import wait_for

_VETLINE = [sys.executable, "-P", "-m", "moderation.cli"]


def run(
    folder: Path, *words: str, timeout_s: float = 90, stdin: str = "", env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """`vetline WORDS` in `folder`, to its end. env: over what is set here."""
    return subprocess.run(
        [*_VETLINE, *words],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        input=stdin,
        env=os.environ | (env or {}),
    )


class Running:
    """`vetline WORDS` in `folder`, running. Its stderr is read all the time and kept."""

    def __init__(self, folder: Path, *words: str) -> None:
        self._folder = folder
        self.process = subprocess.Popen(
            [*_VETLINE, *words],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.lines: list[str] = []
        assert self.process.stderr is not None
        self._reader = threading.Thread(target=self._read, args=(self.process.stderr,))
        self._reader.start()

    def wait_for(self, words: str, *, timeout_s: float = 60) -> str:
        """The first line of stderr that holds these words."""

        def look() -> str | None:
            found = next((line for line in list(self.lines) if words in line), None)
            assert found or self.process.poll() is None, f"it ended: {self.lines[-5:]}"
            return found

        line = wait_for(look, timeout_s=timeout_s, what=f"{words!r}")
        assert line is not None
        return line

    def ended(self, *, timeout_s: float = 60) -> int:
        """Its exit code."""
        code = self.process.wait(timeout_s)
        self._reader.join(10)
        return code

    def announced(self) -> dict[str, str | int]:
        """What a running `vetline up` wrote about itself."""
        found: dict[str, str | int] = json.loads((self._folder / ".vetline" / "run.json").read_text())
        return found

    def __enter__(self) -> "Running":
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.ended()

    def _read(self, stderr: IO[str]) -> None:
        with stderr:
            for line in stderr:
                self.lines.append(line.rstrip())


def nothing_runs_in(folder: Path) -> bool:
    """No server is kept there and no process names the folder on its command line or works in it."""
    data = folder / ".vetline"
    kept = any(is_taken(data / service / "kept") for service in ("postgres", "redis"))
    shown = subprocess.run(["ps", "-ww", "-eo", "args="], capture_output=True, text=True, check=True).stdout
    return not kept and str(folder) not in shown and not _working_in(folder)


def _working_in(folder: Path) -> list[str]:
    """Processes whose current folder it is, where the system tells."""
    found = []
    for cwd in Path("/proc").glob("[0-9]*/cwd"):
        try:
            if cwd.readlink() == folder:
                found.append(cwd.parent.name)
        except OSError:  # it has ended, or is not ours to look at
            continue
    return found

"""Real worker processes, started as an operator starts them."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.waiting import wait_for

_PASSED_ON = ("PATH", "HOME", "LANG", "TMPDIR", "LD_LIBRARY_PATH", "VETLINE_DATA_DIR")


class RunningWorker:
    """One `vetline worker` in its own process group, logging JSON to a file."""

    def __init__(self, env: dict[str, str], *options: str, log: Path) -> None:
        self.log = log
        plain = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        with log.open("ab") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-W", "ignore", "-m", "moderation.cli", "worker", *options],
                env=plain | {"VETLINE_LOG_STYLE": "json"} | env,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def text(self) -> str:
        return self.log.read_text()

    def said(self, event: str) -> bool:
        return event in self.text

    def wait_until_ready(self, timeout_s: float = 30) -> Self:
        """Until it consumes and its gate has opened."""
        consuming = lambda: self.said(" ready.") and self.said("gate_opened")  # noqa: E731 - read once, below
        wait_for(lambda: consuming() or self._ended(), timeout_s=timeout_s, what="start")
        return self

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        """As the OOM killer would: the worker alone, its children see it go."""
        self.process.kill()
        self.process.wait(timeout=10)

    def stop(self, timeout_s: float = 40) -> int:
        """SIGTERM and wait; its exit code."""
        if self.process.poll() is None:
            self.process.terminate()
        return self.process.wait(timeout=timeout_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(timeout=10)

    def _ended(self) -> bool:
        assert self.process.poll() is None, f"the worker ended: {self.text[-2000:]}"
        return False

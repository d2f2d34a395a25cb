"""A real SGLang 0.5.23 on a CPU, for checking against the real protocol. Answers of its tiny random weights are noise.

folder: holds venv/ (SGLang and what it needs), shim/ (a stand-in for its GPU kernels) and checkpoint/. Own process
group: a killed launcher leaves scheduler, detokenizer and image workers behind.
"""

import contextlib
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import IO, Self

START_TIMEOUT_S = 400.0  # most of it imports: 60 s on two idle cores, three times that on busy ones


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class CpuServer:
    """Started on entry, its whole process group killed on exit. Raises RuntimeError where it does not come up."""

    def __init__(self, folder: Path, log: Path, *arguments: str) -> None:
        self._folder = folder.resolve()
        self._log_path = log
        self._arguments = arguments
        self._port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def __enter__(self) -> Self:
        self._log = self._log_path.open("wb")
        paths = [str(self._folder / "shim"), os.environ.get("PYTHONPATH", "")]
        environment = os.environ | {
            "SGLANG_USE_CPU_ENGINE": "1",
            "PYTHONPATH": os.pathsep.join(path for path in paths if path),
            "HF_HUB_OFFLINE": "1",
            "REQUEST_TIMEOUT": "60",
        }
        self._process = subprocess.Popen(
            self._command(),
            env=environment,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            self._wait_ready()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def kill(self) -> None:
        """End the whole group. May be called twice."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):  # the group is gone already
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(timeout=30)
        if self._log is not None:
            self._log.close()

    def _command(self) -> list[str]:
        python, checkpoint = self._folder / "venv/bin/python", self._folder / "checkpoint"
        given = f"--model-path {checkpoint} --port {self._port} --device cpu --dtype float16"
        given += " --chat-template chatml-llava --context-length 16384 --max-total-tokens 40000"
        given += " --attention-backend torch_native --sampling-backend pytorch --disable-overlap-schedule"
        given += " --mem-fraction-static 0.3 --skip-server-warmup --log-level warning"
        return [str(python), "-m", "sglang.launch_server", *given.split(), *self._arguments]

    def _wait_ready(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            assert self._process is not None
            if self._process.poll() is not None:
                break
            try:
                with urllib.request.urlopen(f"{self.url}/health", timeout=5) as answer:
                    if answer.status == 200:
                        return
            except (urllib.error.URLError, OSError):
                time.sleep(0.5)  # nothing tells when it is ready but asking
        tail = self._log_path.read_text("utf-8", "replace")[-2000:]
        raise RuntimeError(f"SGLang did not come up within {START_TIMEOUT_S} s:\n{tail}")

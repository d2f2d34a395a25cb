"""Starts SGLang, stock or ours, waits until it serves, and ends it with all its processes."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Self


@dataclass(frozen=True, slots=True)
class SetUp:
    """One way to serve: its name in the results, its flags beyond the common ones, its environment."""

    name: str
    flags: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    copies: int = 1  # servers on the one GPU, each taking its share of the requests
    after_start: tuple[str, ...] = ()  # paths to POST once it has answered some images
    mps: bool = False  # whether their kernels may run at the same time


class Server:
    """A running server and its process group. Ends with the `with` block, however that ends."""

    def __init__(self, set_up: SetUp, checkpoint: Path, folder: Path, *, common: Sequence[str] = ()) -> None:
        self.set_up = set_up
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = folder / f"server-{re.sub(r'[^a-z]+', '-', set_up.name)}-{self.port}.log"
        command = [
            sys.executable, "-m", "sglang.launch_server", "--model-path", str(checkpoint),
            "--chat-template", "chatml-llava", "--host", "127.0.0.1", "--port", str(self.port), *common, *set_up.flags,
        ]  # fmt: skip
        environment = {**os.environ, **set_up.environment}
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                command, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )

    def wait(self, timeout_s: float) -> float:
        """Seconds until it answered /health. Raises RuntimeError with the log's end if it never does."""
        start = time.monotonic()
        while time.monotonic() - start < timeout_s:
            if self._process.poll() is not None:
                break
            if self._answers():
                return time.monotonic() - start
            time.sleep(0.5)
        raise RuntimeError(
            f"{self.set_up.name} did not start:\n{self.log.read_text(errors='replace')[-6000:]}"
        )

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=25) as answer:
                return bool(answer.status == 200)
        except OSError:  # refused, timed out, or not yet 200
            return False

    def processes(self) -> dict[int, str]:
        """Each process of the server: its id and what it is called."""
        import psutil  # type: ignore[import-untyped, unused-ignore]  # it has no types

        root = psutil.Process(self._process.pid)
        return {p.pid: (p.cmdline() or [p.name()])[0] for p in (root, *root.children(recursive=True))}

    def cpu_s(self) -> dict[str, float]:
        """CPU seconds used so far: by the HTTP process ("http"), the scheduler, the detokenizer, image workers."""
        import psutil

        used: dict[str, float] = {}
        for pid, name in self.processes().items():
            with contextlib.suppress(psutil.NoSuchProcess):
                times = psutil.Process(pid).cpu_times()
                used[_role(name, pid == self._process.pid)] = (
                    used.get(_role(name, pid == self._process.pid), 0.0) + times.user + times.system
                )
        return used

    def root(self) -> int:
        """The process id of the HTTP process, which also tokenises and cuts tiles."""
        return self._process.pid

    def scheduler(self) -> int:
        """The scheduler's process id."""
        return next(pid for pid, name in self.processes().items() if "scheduler" in name)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """SIGKILL to the group: nothing here is worth a drain."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(timeout=30)


class Fleet:
    """All servers of one set-up, as one."""

    def __init__(self, set_up: SetUp, checkpoint: Path, folder: Path, *, common: Sequence[str] = ()) -> None:
        self.set_up = set_up
        self._mps = Mps(folder / "mps") if set_up.mps else None
        if self._mps is not None:
            set_up = replace(set_up, environment={**set_up.environment, **self._mps.environment})
        self.servers = [Server(set_up, checkpoint, folder, common=common) for _ in range(set_up.copies)]

    @property
    def urls(self) -> list[str]:
        return [server.url for server in self.servers]

    def wait(self, timeout_s: float) -> float:
        """As Server.wait, for the slowest."""
        deadline = time.monotonic() + timeout_s
        return max(server.wait(deadline - time.monotonic()) for server in self.servers)

    def settle(self) -> None:
        """What the set-up asks for once the servers have answered some images."""
        for url in self.urls:
            for path in self.set_up.after_start:
                urllib.request.urlopen(urllib.request.Request(url + path, method="POST"), timeout=60).read()

    def cpu_s(self) -> dict[str, float]:
        total: dict[str, float] = {}
        for server in self.servers:
            for role, used in server.cpu_s().items():
                total[role] = total.get(role, 0.0) + used
        return total

    def stop(self) -> None:
        for server in self.servers:
            server.stop()
        if self._mps is not None:
            self._mps.stop()


class Mps:
    """NVIDIA's Multi-Process Service, for the processes that are given its environment. It changes no setting of the GPU."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.environment = {"CUDA_MPS_PIPE_DIRECTORY": str(folder), "CUDA_MPS_LOG_DIRECTORY": str(folder)}
        self._run("-d")

    def stop(self) -> None:
        self._run(quit_=True)

    def _run(self, *arguments: str, quit_: bool = False) -> None:
        subprocess.run(
            ["nvidia-cuda-mps-control", *arguments], input=b"quit\n" if quit_ else b"", check=False, timeout=60,
            env={**os.environ, **self.environment},
        )  # fmt: skip


def _role(name: str, root: bool) -> str:
    if root:
        return "http"
    if "scheduler" in name:
        return "scheduler"
    return "detokenizer" if "detokenizer" in name else "image workers and others"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port

"""The workers of a run: real processes, started again whenever they end, as any supervisor does."""

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from bench.chaos.history import History

_LOOK_EVERY_S = 0.1


@dataclass(slots=True)
class WorkerSlot:
    """One place in the workers. incarnation counts the processes that stood here; each has its own worker name."""

    number: int
    incarnation: int = 0
    process: subprocess.Popen[bytes] | None = None
    expected: str | None = None  # the fault that is about to end it
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def name(self) -> str:
        return f"c{self.number}-{self.incarnation}"


class Workers:
    """Keeps every post manned until it is dismissed.

    folder: keeps a log for each worker. up: what a worker logs when it is about to take work.
    """

    def __init__(
        self,
        command: list[str],
        env: dict[str, str],
        size: int,
        folder: Path,
        history: History,
        *,
        up: bytes,
    ) -> None:
        self._up = up
        self._command = command
        self._env = os.environ | env
        self._folder = folder
        self._history = history
        self._dismissed = threading.Event()
        self.posts = [WorkerSlot(number) for number in range(size)]
        self._thread = threading.Thread(target=self._keep, name="workers", daemon=True)

    def start(self) -> None:
        for post in self.posts:
            self._man(post)
        self._thread.start()

    def is_up(self, post: WorkerSlot) -> bool:
        log = self._log(post)
        return log.exists() and self._up in log.read_bytes()

    def end(self, post: WorkerSlot, fault: str) -> float | None:
        """Kill -9 or SIGTERM the worker at this post and say how many seconds it took to go; None if it was gone."""
        number = signal.SIGKILL if fault == "kill" else signal.SIGTERM
        with post.lock:
            process = post.process
            if process is None or process.poll() is not None:
                return None
            post.expected = fault
            self._history.note(fault, worker=post.name)
            start = time.monotonic()
            process.send_signal(number)
        process.wait(timeout=120)
        return time.monotonic() - start

    def stop(self, post: WorkerSlot, seconds: float) -> bool:
        """SIGSTOP the worker at this post; whether there was one."""
        with post.lock:
            process = post.process
            if process is None or process.poll() is not None:
                return False
            self._history.note("freeze", worker=post.name, seconds=seconds)
            process.send_signal(signal.SIGSTOP)
            return True

    def go_on_after(self, post: WorkerSlot, seconds: float) -> None:
        """SIGCONT for whoever was stopped at this post."""
        process = post.process
        assert process is not None
        self._dismissed.wait(seconds)
        if process.poll() is None:
            process.send_signal(signal.SIGCONT)
            self._history.note("thaw", worker=post.name)

    def dismiss(self) -> None:
        self._dismissed.set()
        self._thread.join()
        for post in self.posts:
            if post.process is not None and post.process.poll() is None:
                post.process.terminate()
        for post in self.posts:
            if post.process is not None:
                try:
                    post.process.wait(timeout=40)
                except subprocess.TimeoutExpired:
                    self._history.note("would_not_go", worker=post.name)
                    post.process.kill()

    def _keep(self) -> None:
        while not self._dismissed.wait(_LOOK_EVERY_S):
            for post in self.posts:
                with post.lock:
                    if post.process is not None and post.process.poll() is not None:
                        code = post.process.returncode
                        self._history.note("ended", worker=post.name, code=code, fault=post.expected)
                        self._man(post)

    def _man(self, post: WorkerSlot) -> None:
        post.incarnation += 1
        post.expected = None
        with self._log(post).open("ab") as log:
            post.process = subprocess.Popen(
                [sys.executable, "-W", "ignore", *self._command, post.name],
                env=self._env,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._history.note("started", worker=post.name)

    def _log(self, post: WorkerSlot) -> Path:
        return self._folder / f"{post.name}.log"

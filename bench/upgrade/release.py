"""A checkout with an environment of its own, and the processes that are started from it."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.waiting import wait_for

# Runs under the release's own interpreter: submits what is on stdin by the release's own Client, one after the other.
# A line on stdout is an accepted assessment.
_PRODUCER = """
import json, sys, time
from moderation.errors import LedgerUnavailable
from producer import Client
with Client() as client:
    for line in sys.stdin:
        key, uri = line.rstrip("\\n").split(" ", 1)
        while True:
            try:
                ticket = client.submit(uri, "llavaguard-default", key=key)
            except LedgerUnavailable:
                time.sleep(0.2)
            else:
                print(json.dumps({"id": str(ticket.id), "key": key}), flush=True)
                break
"""
_STARTS_S = 60.0
_GONE_S = 60.0


@dataclass(frozen=True, slots=True)
class Release:
    """folder: the root of the checkout. python: the interpreter that has its dependencies. logs: kept by process."""

    name: str
    folder: Path
    python: str
    env: dict[str, str]
    logs: Path

    @property
    def commit(self) -> str:
        done = subprocess.run(
            ["git", "-C", str(self.folder), "describe", "--always", "--dirty"],
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout.strip() or "unknown"

    def vetline(self, *words: str) -> str:
        """What a command of this release says, on either stream. Raises RuntimeError where it fails."""
        done = subprocess.run(
            self._command(*words), cwd=self.folder, env=self._env, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"{self.name}: vetline {' '.join(words)}: {done.stdout}{done.stderr}")
        return done.stdout + done.stderr

    def worker(self, name: str, sglang_url: str) -> "Running":
        """A worker that is about to take work."""
        running = self._start(name, self._command("worker", "--sglang-url", sglang_url, "--name", name))
        running.wait_until_logged(b"worker_started")
        return running

    def consumer(self, name: str) -> "Running":
        """`vetline feed --follow` under a consumer's name; its output has a verdict a line."""
        return self._start(f"{self.name}-feed", self._command("feed", "--follow", "--consumer", name))

    def submit(self, items: Sequence[tuple[str, str]]) -> "Running":
        """A producer of this release that submits keys and URIs, one after the other."""
        running = self._start(f"{self.name}-producer", [self.python, "-c", _PRODUCER], stdin=subprocess.PIPE)
        assert running.process.stdin is not None
        running.process.stdin.write("".join(f"{key} {uri}\n" for key, uri in items).encode())
        running.process.stdin.close()
        return running

    @property
    def _env(self) -> dict[str, str]:
        return os.environ | self.env

    def _command(self, *words: str) -> list[str]:
        return [self.python, "-W", "ignore", "-m", "moderation.cli", *words]

    def _start(self, name: str, command: list[str], stdin: int = subprocess.DEVNULL) -> "Running":
        out, log = self.logs / f"{name}.out", self.logs / f"{name}.log"
        with out.open("wb") as stdout, log.open("wb") as stderr:
            process = subprocess.Popen(
                command,
                cwd=self.folder,
                env=self._env,
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
            )
        return Running(name, process, out, log)


@dataclass(frozen=True, slots=True)
class Running:
    """A process of a release, with its output and its log."""

    name: str
    process: subprocess.Popen[bytes]
    out: Path
    log: Path

    def wait_until_logged(self, event: bytes) -> None:
        """Raises RuntimeError where it ends before, AssertionError where it takes longer than a minute."""

        def logged() -> bool:
            if self.process.poll() is not None:
                raise RuntimeError(f"{self.name} ended with {self.process.returncode}, see {self.log}")
            return event in self.log.read_bytes() + self.out.read_bytes()

        wait_for(logged, timeout_s=_STARTS_S, what=f"{event.decode()} of {self.name}")

    def objects(self) -> Iterator[dict[str, object]]:
        """The JSON objects that it has written, one a line; a line that is half written is left out."""
        for line in self.out.read_text().splitlines(keepends=True):
            if line.endswith("\n"):
                yield json.loads(line)

    def finish(self, limit_s: float) -> None:
        """Wait for its end. Raises RuntimeError where it failed."""
        if self.process.wait(timeout=limit_s):
            raise RuntimeError(f"{self.name} ended with {self.process.returncode}, see {self.log}")

    def stop(self) -> float:
        """SIGTERM, and how many seconds it took to go."""
        start = time.monotonic()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(timeout=_GONE_S)
        return time.monotonic() - start

    def kill(self) -> None:
        """For a run that failed: leave nothing behind."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

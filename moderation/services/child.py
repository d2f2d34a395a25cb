"""A server as a child process: it writes to a log, ends when we do however we end, stops in bounded time."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import IO

from moderation.errors import ServiceMissing

LOOPBACK = "127.0.0.1"
_POLL_S = 0.01

# Reads until the writing end closes, which the kernel does when we die, even by kill -9; then signals the
# server. Chosen over PR_SET_PDEATHSIG, which only Linux has, which a change of user clears, and which fires
# when the *thread* that started the child ends.
_WATCH = 'while read -r _; do :; done; kill -s "$1" -- "$2" 2>/dev/null'


class StartError(Exception):
    """The server ended, or was not ready in time. output: what it wrote to its log since it was started."""

    def __init__(self, output: str) -> None:
        super().__init__(output)
        self.output = output


class ChildProcess:
    """One running server process and the small shell that outlives us to stop it."""

    def __init__(
        self,
        argv: Sequence[str],
        *,
        stop_signal: signal.Signals,
        env: Mapping[str, str],
        log: Path | None = None,
        cwd: Path = Path("/"),
        spawn_as: tuple[int, int] | None = None,
        config: str | None = None,
        whole_group: bool = False,
    ) -> None:
        """Start argv in a session of its own, so that Ctrl-C reaches only us and we stop it in our order.

        stop_signal: what the watcher sends when we are gone.
        log: where it writes; None leaves that to the reader of `output`.
        spawn_as: user and group, where not ours.
        config: text for its standard input, where a password is not seen in the list of processes.
        whole_group: it starts processes of its own that may outlive it: SIGKILL, the watcher's signal and its own end
            are for all of them. Other signals are for it alone.
        """
        self._whole_group = whole_group
        self._log = log
        self._log_start = log.stat().st_size if log is not None and log.exists() else 0
        with log.open("ab") if log is not None else nullcontext(subprocess.PIPE) as out:
            self._process = subprocess.Popen(
                argv,
                stdin=subprocess.PIPE if config is not None else subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=dict(env),
                cwd=cwd,
                user=spawn_as[0] if spawn_as else None,
                group=spawn_as[1] if spawn_as else None,
                extra_groups=[] if spawn_as else None,
                start_new_session=True,
            )
        self.pid = self._process.pid
        self._watcher: subprocess.Popen[bytes] | None = subprocess.Popen(
            ["/bin/sh", "-c", _WATCH, "sh", stop_signal.name.removeprefix("SIG"), self._target],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
        )
        if config is not None and self._process.stdin is not None:
            with suppress(BrokenPipeError), self._process.stdin as pipe:
                pipe.write(config.encode())

    @property
    def output(self) -> IO[bytes]:
        """What it writes, where it was given no log."""
        assert self._process.stdout is not None, "it writes to a log"
        return self._process.stdout

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative: the signal that ended it."""
        return None if self.alive() else self._process.returncode

    def alive(self) -> bool:
        if self._process.poll() is None:
            return True
        self._clear_up()
        return False

    def logged(self) -> str:
        """What it wrote to its log since it was started."""
        assert self._log is not None, "it writes to no log"
        with self._log.open("rb") as log:
            log.seek(self._log_start)
            return log.read().decode(errors="replace")

    def wait_until(self, ready: Callable[[], bool], *, timeout_s: float) -> None:
        """Raises StartError, the process gone, if it ends or is not ready in timeout_s."""
        deadline = time.monotonic() + timeout_s
        while not ready():
            if not self.alive():
                raise StartError(self.logged())
            if time.monotonic() > deadline:
                self.stop([signal.SIGKILL])
                raise StartError(f"{self.logged()}\nnot ready after {timeout_s:g} s")
            time.sleep(_POLL_S)

    def send(self, number: signal.Signals) -> None:
        """Send it a signal; nothing where it has ended."""
        if self.alive():
            self._signal(number)

    def stop(self, signals: Sequence[signal.Signals], *, patience_s: float = 20.0) -> None:
        """Send each signal in turn, patience_s apart, until it has ended. The last should be SIGKILL."""
        for number in signals:
            if not self.alive():
                return
            self._signal(number)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(patience_s)
        self.alive()

    @property
    def _target(self) -> str:
        return f"-{self.pid}" if self._whole_group else str(self.pid)

    def _signal(self, number: signal.Signals) -> None:
        if self._whole_group and number is signal.SIGKILL:
            self._kill_group()
        else:
            self._process.send_signal(number)

    def _kill_group(self) -> None:
        with suppress(ProcessLookupError):  # nobody is left
            os.killpg(self.pid, signal.SIGKILL)

    def _clear_up(self) -> None:
        if self._watcher is not None and self._whole_group:
            self._kill_group()  # a group's number is nobody else's while one of it lives
        self._dismiss_watcher()

    def _dismiss_watcher(self) -> None:
        # Only once the server is reaped: from then on its number may be given to another process.
        if self._watcher is not None:
            self._watcher.kill()
            self._watcher.communicate()
            self._watcher = None


def free_port() -> int:
    """A TCP port on loopback that nothing listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


def start_on_a_port(
    name: str, port: int | None, launch: Callable[[int], ChildProcess]
) -> tuple[ChildProcess, int]:
    """Launch on `port`, or on a free one; tried again where the reason for failing passes.

    Raises ServiceMissing with the server's own last line.
    """
    for attempts_left in (4, 3, 2, 1, 0):
        chosen = port or free_port()
        try:
            return launch(chosen), chosen
        except StartError as exc:
            if attempts_left and _passes(exc.output, port_is_ours_to_choose=port is None):
                time.sleep(0.2)
                continue
            raise ServiceMissing(f"{name} did not start: {_last_line(exc.output)}") from exc
    raise AssertionError("unreachable: the last attempt returns or raises")


def _passes(output: str, *, port_is_ours_to_choose: bool) -> bool:
    """Whether the reason is one that another start does not meet."""
    if (
        "pre-existing shared memory block" in output
    ):  # after kill -9, until the last of its children has noticed
        return True
    return port_is_ours_to_choose and "address already in use" in output.lower()


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    fatal = [line for line in lines if "FATAL" in line or "rror" in line]
    return (fatal or lines or ["it wrote nothing to its log"])[-1]

"""The parent's end of one decoder child: started, asked, killed."""

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import structlog

from intake.frames import FrameChannel, FrameError, Header
from intake.settings import DecodeSettings
from moderation.errors import DecoderUnavailable

log = structlog.get_logger(__name__)

_START_S = 30.0  # it takes 0.1 s; a machine that swaps takes longer
_BUFFER_BYTES = 1_000_000
_KEPT_ENVIRONMENT = ("LD_LIBRARY_PATH", "PYTHONHOME")  # where the interpreter finds its libraries


class DecoderDeathError(Exception):
    """The child ended while it was decoding."""


class DecoderOverrunError(Exception):
    """The child was killed because it took too long. starved: it got less than half the CPU that it may take."""

    def __init__(self, message: str, *, starved: bool = False) -> None:
        super().__init__(message)
        self.starved = starved


class DecoderProcess:
    """One child. Used by one thread at a time, except for `kill`."""

    def __init__(self, settings: DecodeSettings) -> None:
        """Start the child and wait until it is ready. Raises DecoderUnavailable."""
        self._settings = settings
        self.decodes = 0
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                for end in (ours, theirs):
                    # kombu sets a timeout for all new sockets while it closes a connection. The child would inherit
                    # one that does not wait for its first image, and end.
                    end.settimeout(None)
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES)
                self._process = _start(settings, theirs.fileno())
        except OSError as error:
            ours.close()
            raise DecoderUnavailable(f"a decoder could not be started: {error.strerror}") from error
        self._channel = FrameChannel(ours)
        try:
            ready, _ = self._channel.receive(deadline=time.monotonic() + _START_S, max_blob_bytes=0)
        except (TimeoutError, FrameError) as error:
            self.kill()
            raise DecoderUnavailable("a decoder ended before it was ready; is Pillow installed?") from error

        log.info("decoder_started", pid=self.pid, sandboxed=ready.get("sandboxed") is True)

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(self, question: Header, data: bytes) -> tuple[Header, list[bytes]]:
        """One image. After either error the child is gone.

        Raises DecoderOverrunError where it took longer than allowed, DecoderDeathError.
        """
        self.decodes += 1
        deadline = time.monotonic() + self._settings.wall_s
        cpu_before_s = self._cpu_s()
        try:
            self._channel.send(question, [data], deadline=deadline)
            return self._channel.receive(deadline=deadline, max_blob_bytes=self._settings.memory_bytes)
        except TimeoutError as error:
            starved = self._cpu_s() - cpu_before_s < self._settings.cpu_s / 2
            self.kill()
            message = f"decoding took longer than {self._settings.wall_s:g} s"
            raise DecoderOverrunError(message, starved=starved) from error
        except FrameError as error:
            code = self.kill(grace_s=1.0)
            if code == -signal.SIGXCPU:
                raise DecoderOverrunError(
                    f"decoding took more than {self._settings.cpu_s} s of CPU"
                ) from error
            raise DecoderDeathError(f"the decoder ended with {code}") from error

    def stop(self) -> None:
        """Make an `ask` in another thread end with DecoderDeathError."""
        self._process.kill()

    def kill(self, grace_s: float = 0.0) -> int:
        """End the child. Returns its exit status, its own where it ends by itself within grace_s."""
        self._channel.close()
        try:
            return self._process.wait(grace_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def _cpu_s(self) -> float:
        """CPU seconds that the child has taken. Where the system does not say, as much as time itself."""
        try:
            fields = Path(f"/proc/{self.pid}/stat").read_bytes().rpartition(b")")[2].split()
        except OSError:
            return time.monotonic()
        user, system = int(fields[11]), int(fields[12])
        return (user + system) / os.sysconf("SC_CLK_TCK")


def _start(settings: DecodeSettings, stdin: int) -> "subprocess.Popen[bytes]":
    """A fresh interpreter with nothing of ours in it: no environment, no site, no open files.

    subprocess, not fork: the worker has a hundred threads, and a fork of those may inherit a held lock.
    """
    boot = (
        "import json, sys; sys.path[:0] = json.loads(sys.argv[1]);"
        "from intake.decoder_child import main; main(json.loads(sys.argv[2]))"
    )
    return subprocess.Popen(
        [sys.executable, "-SEsP", "-c", boot, json.dumps(_import_paths()), json.dumps(_options(settings))],
        stdin=stdin,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={name: os.environ[name] for name in _KEPT_ENVIRONMENT if name in os.environ}
        | {"MALLOC_ARENA_MAX": "1", "OPENBLAS_NUM_THREADS": "1"},  # more would eat up the address space
        cwd="/",
        process_group=0,  # a Ctrl-C at the terminal is the parent's to handle
    )


def _options(settings: DecodeSettings) -> dict[str, object]:
    limits = ("max_pixels", "max_frames", "max_total_pixels", "frames_judged")
    return {
        "memory_bytes": settings.memory_bytes,
        "cpu_s": settings.cpu_s,
        "perceptual_hash": settings.perceptual_hash,
        "limits": {name: getattr(settings, name) for name in limits},
    }


def _import_paths() -> Sequence[str]:
    """Where this package and what decoding needs lie; found without importing any of it here."""
    paths = [str(Path(__file__).parents[1])]
    for name in ("PIL", "pillow_heif", "numpy", "pdqhash"):
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.origin is not None:
            paths.append(str(Path(spec.origin).parents[1]))
    return list(dict.fromkeys(paths))

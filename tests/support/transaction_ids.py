"""A scratch cluster whose next transaction id is chosen, as if that many transactions had come before.

`pg_resetwal` lies in the folder of the other binaries. It keeps the cluster's system identifier, so a migrated
database stays in the same epoch of the feed. Ids are those of xid8: 64 bits, which grow past 2^32 without a wrap.
"""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from psycopg import sql
from sqlalchemy.engine import make_url

from moderation.ledger.engine import open_ledger
from moderation.ledger.migrate import upgrade
from moderation.ledger.policies import seed_builtin
from moderation.services.account import account_for
from moderation.services.postgres import LocalPostgres, _binaries

# pg_xact keeps two bits for each transaction, in pages of 8 KiB and files of 32 pages named by their number.
_PAGE_BYTES = 8192
_SEGMENT_BYTES = 32 * _PAGE_BYTES
_SEGMENT_IDS = _SEGMENT_BYTES * 4
_FIRST_NORMAL = 3  # of the lower 32 bits; Postgres skips those before


def migrated_cluster(folder: Path) -> Path:
    """A stopped cluster whose database is migrated and has the built-in policies, to copy with `cluster_at`."""
    with LocalPostgres.start(folder, fsync=False) as server:
        engine = open_ledger(server.url)
        upgrade(engine)
        seed_builtin(engine)
        engine.dispose()
        _freeze(server)
    return folder


@contextmanager
def cluster_at(template: Path, folder: Path, next_id: int) -> Iterator[LocalPostgres]:
    """A running copy of the stopped cluster in `template`, whose next transaction id is `next_id`."""
    subprocess.run(["cp", "-a", str(template), str(folder)], check=True)
    _reset(folder, next_id)
    with LocalPostgres.start(folder, fsync=False) as server:
        _freeze(server)
        yield server


def go_on_at(server: LocalPostgres, folder: Path, next_id: int) -> None:
    """Restart the running cluster in `folder` with `next_id` as its next transaction id; its rows stay."""
    _freeze(server)
    server.stop()
    _reset(folder, next_id)
    server.restart()
    _freeze(server)


def next_id(server: LocalPostgres) -> int:
    """The id that the next transaction to write gets."""
    with _connection(server, "postgres") as connection:
        row = connection.execute("SELECT pg_snapshot_xmax(pg_current_snapshot())::text").fetchone()
    assert row is not None
    return int(row[0])


def _freeze(server: LocalPostgres) -> None:
    """Mark the rows of earlier transactions as visible to all, so that nobody looks for how those ended.

    Behind a reset it finds nothing left to mark, and has the catalogs say that each table is as young as the next id.
    """
    with _connection(server, "postgres") as connection:
        rows = connection.execute("SELECT datname, datallowconn FROM pg_database").fetchall()
        for name in (name for name, open_ in rows if not open_):
            connection.execute(
                sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS true").format(sql.Identifier(name))
            )
    for name, _ in rows:
        with _connection(server, name) as connection:
            connection.execute("VACUUM (FREEZE)")


def _reset(folder: Path, next_id: int) -> None:
    """Set the next id of a stopped cluster all of whose rows are frozen."""
    epoch, low = divmod(next_id, 2**32)
    if low < _FIRST_NORMAL:
        raise ValueError(f"Postgres gives no transaction the id {next_id}")
    data = folder / "data"
    binaries = _binaries()
    account = account_for([folder, binaries])
    segment = data / "pg_xact" / f"{low // _SEGMENT_IDS:04X}"
    segment.touch(mode=0o600)
    account.own(segment)
    with segment.open("r+b") as file:
        file.truncate(_SEGMENT_BYTES)  # what is added is zeros: transactions that never ended
    # No row is older than this oldest id, so Postgres sees no wrap-around near.
    command = [str(binaries / "pg_resetwal"), f"--pgdata={data}", f"--next-transaction-id={low}",
               f"--epoch={epoch}", f"--oldest-transaction-id={low}"]  # fmt: skip
    as_whom = account.spawn_as
    subprocess.run(
        [*account.prefix, *command],
        check=True,
        capture_output=True,
        cwd="/",
        user=as_whom[0] if as_whom else None,
        group=as_whom[1] if as_whom else None,
        extra_groups=[] if as_whom else None,
    )


def _connection(server: LocalPostgres, database: str) -> psycopg.Connection:
    url = make_url(server.url).set(drivername="postgresql", database=database)
    return psycopg.connect(url.render_as_string(hide_password=False), autocommit=True)

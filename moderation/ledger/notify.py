"""Notifies listeners by NOTIFY that verdicts were recorded. It is only a hint: readers also look every second.

NOTIFY takes a cluster-wide lock until its transaction is on disk, so it is never part of the transaction that records
verdicts. It goes in a transaction of its own, which writes nothing that the commit would wait for. One notification
stands for everything that a worker recorded since its last one.
"""

import time
from typing import Any

import psycopg
from sqlalchemy import Engine, text

from moderation.errors import LedgerUnavailable
from moderation.ledger.engine import autocommit, reaching_postgres

_CHANNEL = "vetline_verdicts"
_LISTEN = f"LISTEN {_CHANNEL}".encode()
_TELL = text(f"NOTIFY {_CHANNEL}")
_AGAIN_S = 5.0  # until it is tried again to listen, where that failed; looking goes on meanwhile


def notify_recorded(engine: Engine) -> None:
    """Wake those who listen."""
    with autocommit(engine) as connection:
        connection.execute(_TELL)


class Listener:
    """Listens on a connection of its own. Used by one thread. Behind a pooler it hears nothing, and that is all."""

    def __init__(self, engine: Engine) -> None:
        # The engine's own way to connect, but not its pool: a connection that listens is of no other use.
        self._connect = engine.raw_connection
        self._connection: psycopg.Connection[Any] | None = None
        self._not_before = 0.0

    def wait(self, timeout_s: float) -> bool:
        """Until verdicts were recorded since the last call, or the time is over. Whether they were."""
        connection = self._listening()
        if connection is None:
            time.sleep(timeout_s)
            return False
        try:
            return next(connection.notifies(timeout=timeout_s, stop_after=1), None) is not None
        except psycopg.Error:
            self.close()
            return False

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _listening(self) -> psycopg.Connection[Any] | None:
        if self._connection is None and time.monotonic() >= self._not_before:
            try:
                self._connection = self._connected()
            except LedgerUnavailable:  # not to hear costs a second; whoever looks learns what is wrong
                self._not_before = time.monotonic() + _AGAIN_S
        return self._connection

    def _connected(self) -> psycopg.Connection[Any]:
        with reaching_postgres():
            pooled = self._connect()
            connection = pooled.driver_connection
            pooled.detach()
        assert isinstance(connection, psycopg.Connection)
        try:
            connection.execute(_LISTEN)
        except psycopg.Error as exc:
            connection.close()
            raise LedgerUnavailable("cannot listen") from exc
        return connection

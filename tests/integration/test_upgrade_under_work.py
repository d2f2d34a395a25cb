"""An upgrade of several migrations while workers record: neither waits for the other for ever, and none is cut off."""

import threading

import pytest
from sqlalchemy import Engine, text

from moderation.ledger import migrate
from moderation.ledger.engine import open_ledger, transaction
from tests.support.waiting import wait_for

# The tables that a record locks, in its order; slowly, so that the upgrade meets it in the middle.
_RECORD = (
    "LOCK TABLE assessment IN ROW EXCLUSIVE MODE",
    "SELECT pg_sleep(0.05)",
    "LOCK TABLE attempt IN ROW EXCLUSIVE MODE",
    "LOCK TABLE verdict IN ROW EXCLUSIVE MODE",
)
_FEED = (
    "LOCK TABLE verdict IN ACCESS SHARE MODE",
    "SELECT pg_sleep(0.05)",
    "LOCK TABLE assessment IN ACCESS SHARE MODE",
)


class AtWork(threading.Thread):
    """Takes the locks of a statement again and again, until it is told to stop. errors: what Postgres refused it."""

    def __init__(self, engine: Engine, statements: tuple[str, ...]) -> None:
        super().__init__()
        self.engine, self.statements = engine, statements
        self.stopped = threading.Event()
        self.rounds, self.errors = 0, list[Exception]()

    def run(self) -> None:
        while not self.stopped.is_set():
            try:
                with transaction(self.engine) as connection:
                    for statement in self.statements:
                        connection.execute(text(statement))
                self.rounds += 1
            except Exception as exc:  # noqa: BLE001 - the test looks at them
                self.errors.append(exc)


def upgraded_beside(url: str, statements: tuple[str, ...]) -> list[Exception]:
    """What went wrong for four at work while the tables went from the release before to this one."""
    engine = open_ledger(url)
    migrate.upgrade(engine, "0013")
    at_work = [AtWork(engine, statements) for _ in range(4)]
    for thread in at_work:
        thread.start()
    try:
        wait_for(lambda: all(thread.rounds for thread in at_work), what="work under way")
        assert migrate.upgrade(engine) == migrate.head()
    finally:
        for thread in at_work:
            thread.stopped.set()
        for thread in at_work:
            thread.join()
        engine.dispose()
    return [error for thread in at_work for error in thread.errors]


def test_workers_that_record_are_not_cut_off(empty_postgres_url: str) -> None:
    assert upgraded_beside(empty_postgres_url, _RECORD) == []


@pytest.mark.timeout(180)
def test_the_upgrade_comes_through_beside_readers_that_lock_in_their_own_order(
    empty_postgres_url: str,
) -> None:
    """Postgres may cut off a reader, which reads again, or the upgrade, which begins anew."""
    upgraded_beside(empty_postgres_url, _FEED)

"""Verdicts written across a boundary of transaction ids: out of order, with aborts, ids burned, all filters mixed."""

import random
from typing import Any

from sqlalchemy import Connection, Engine, text

from moderation.ledger.engine import open_ledger
from moderation.settings import LedgerSettings
from tests.support.recorded import record

OPEN_AT_ONCE = 6
# Ids on both sides: powers of ten, where texts sort anew; 2^31 and 2^32, where 32 bits end; 2^63, where bigint does.
BOUNDARIES = (
    995,
    9_995,
    99_995,
    999_995,
    2**31 - 5,
    2**32 - 5,
    10**10 - 5,
    10 * 2**32 - 5,
    10**15 - 5,
    2**63 - 5,
)
FILTERS: dict[str, dict[str, str]] = {
    "none": {},
    "policy": {"policy": "strict"},
    "policy@revision": {"policy": "llavaguard-default@1"},
    "rating": {"rating": "Unsafe"},
    "category": {"category": "O2"},
    "whole category": {"category": "NA: None applying"},
    "batch": {"batch": "b1"},
    "all of them": {"policy": "strict@1", "rating": "Unsafe", "category": "O2", "batch": "b0"},
    "nothing passes": {"batch": "no such batch"},
}


def write_across(url: str, *, transactions: int = 40, seed: int = 1) -> None:
    """Several transactions are open at a time, write in turn, and end in any order: committed, or rolled back."""
    chance = random.Random(seed)
    engine = open_ledger(url, LedgerSettings(pool_size=OPEN_AT_ONCE)).execution_options(
        isolation_level="READ COMMITTED"
    )
    still_open: list[Connection] = []
    begun = written = 0
    while begun < transactions or still_open:
        if begun < transactions and len(still_open) < OPEN_AT_ONCE:
            still_open.append(engine.connect())
            still_open[-1].execute(text("SELECT pg_current_xact_id()"))
            begun += 1
        connection = chance.choice(still_open)
        if chance.random() < 0.6:
            record(
                connection, count := chance.randint(1, 3), first=written, prefix=f"s{seed}-", **_kind(chance)
            )
            written += count
        elif len(still_open) == OPEN_AT_ONCE or begun == transactions:
            still_open.remove(connection)
            _end(connection, chance)
    engine.dispose()


def burn(engine: Engine, ids: int) -> None:
    """Use up so many transaction ids, one transaction each."""
    with engine.connect() as connection:
        for _ in range(ids):
            connection.execute(text("SELECT pg_current_xact_id()"))


def _end(connection: Connection, chance: random.Random) -> None:
    if chance.random() < 0.2:
        connection.rollback()
    else:
        connection.commit()
    connection.close()


def _kind(chance: random.Random) -> dict[str, Any]:
    return {
        "rating": chance.choice(["Safe", "Unsafe"]),
        "batch": chance.choice([None, "b0", "b1"]),
        "policy": chance.choice(["llavaguard-default", "strict"]),
    }

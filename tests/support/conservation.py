"""What holds of a ledger at any moment, whatever was killed before: read from the database alone."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Engine, text

from moderation.assessment import State

_ROWS = text("SELECT * FROM assessment")
_ATTEMPTS = text("SELECT * FROM attempt ORDER BY assessment_id, attempt")
_VERDICTS = text("SELECT assessment_id, attempt FROM verdict")
# What ends an attempt without charging it: a stop or an unavailable service was to blame, or a death, counted apart.
_UNCHARGED = {"given_back", "crashed", "cancelled"}

Row = Mapping[str, Any]


def violations(engine: Engine, accepted: Iterable[UUID] = ()) -> list[str]:
    """One line for each promise that the ledger breaks; [] is what a test wants.

    accepted: ids that submit returned; each must have its row.
    """
    with engine.connect() as connection:
        rows = {row["id"]: dict(row) for row in connection.execute(_ROWS).mappings()}
        attempts: defaultdict[UUID, list[Row]] = defaultdict(list)
        for attempt in connection.execute(_ATTEMPTS).mappings():
            attempts[attempt["assessment_id"]].append(dict(attempt))
        verdicts: defaultdict[UUID, list[int]] = defaultdict(list)
        for id_, number in connection.execute(_VERDICTS):
            verdicts[id_].append(number)
    found = [f"{id_}: accepted and gone" for id_ in accepted if id_ not in rows]
    for id_, row in rows.items():
        found += [f"{id_}: {what}" for what in row_violations(row, attempts[id_], verdicts[id_])]
    return found


def row_violations(row: Row, attempts: Sequence[Row], verdicts: Sequence[int]) -> list[str]:
    """attempts: ended ones, first to last. verdicts: the attempt that each came from. No retry is assumed."""
    state, last = row["state"], row["attempt"]
    ended = last - 1 if state == State.RUNNING else last
    outcomes = [attempt["outcome"] for attempt in attempts]
    done_at = [attempt["attempt"] for attempt in attempts if attempt["outcome"] == "done"]
    charged = sum(outcome not in _UNCHARGED for outcome in outcomes) + (state == State.RUNNING)
    checks = {
        "each attempt but the live one has ended once": [a["attempt"] for a in attempts]
        == list(range(1, ended + 1)),
        "a verdict where it is done, and only there": len(verdicts) == (state == State.DONE),
        "the verdict comes from the attempt that ended done": list(verdicts) == done_at,
        "charged as its attempts say": row["charged"] == charged,
        "crashes as its attempts say": row["crashes"] == outcomes.count("crashed"),
        "nothing after the end": not ({"done", "failed"} & set(outcomes[:-1])),
    }
    return [f"not so: {what} ({state}, {last}, {outcomes})" for what, holds in checks.items() if not holds]

"""What a reader was given, held against the table of verdicts: all of it, in the order of commits, nothing besides.

The table is read without an order and sorted here, by ids as Python's integers, so that nothing of the code under test
has a say in what is right.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from sqlalchemy import Engine, text

_TABLE = text("""
    SELECT v.epoch, CAST(v.xid AS text) AS digits, v.seq, v.assessment_id, v.rating, v.category, a.key, a.batch,
           r.policy, r.revision
    FROM verdict v JOIN assessment a ON a.id = v.assessment_id JOIN policy_revision r ON r.id = v.policy_revision_id
""")


@dataclass(frozen=True, slots=True)
class Recorded:
    """A verdict as the table has it. place: epoch, transaction id, number: the order of the feed."""

    place: tuple[int, int, int]
    id: str
    key: str
    rating: str
    category: str
    batch: str | None
    policy: str
    revision: int

    def passes(self, wanted: dict[str, str]) -> bool:
        """Whether a filter as the feed takes it lets this one through."""
        words = {
            "policy": (self.policy, f"{self.policy}@{self.revision}"),
            "rating": (self.rating,),
            "category": (self.category, self.category.partition(":")[0]),
            "batch": (self.batch,),
        }
        return all(value in words[name] for name, value in wanted.items())


def recorded_in(engine: Engine) -> list[Recorded]:
    """Every verdict of the table, in commit order."""
    with engine.connect() as connection:
        rows = connection.execute(_TABLE).all()
    return sorted(map(_recorded, rows), key=lambda row: row.place)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Counts. out_of_order: steps back among what came for the first time. repeated: what came more than once."""

    in_table: int
    given: int
    missing: int
    unknown: int
    out_of_order: int
    repeated: int

    @property
    def complete(self) -> bool:
        """At least once, in order, and nothing that is not there."""
        return self.missing == self.unknown == self.out_of_order == 0

    @property
    def exact(self) -> bool:
        """Once."""
        return self.complete and self.repeated == 0


def compare(table: Sequence[str], given: Sequence[str]) -> Comparison:
    """table: ids in commit order. given: ids in the order in which a reader got them, repeats included."""
    place = {id_: number for number, id_ in enumerate(table)}
    first_time = list(dict.fromkeys(given))
    places = [place[id_] for id_ in first_time if id_ in place]
    return Comparison(
        in_table=len(table),
        given=len(given),
        missing=len(place.keys() - set(given)),
        unknown=len(first_time) - len(places),
        out_of_order=sum(after < before for before, after in pairwise(places)),
        repeated=len(given) - len(first_time),
    )


def _recorded(row: Any) -> Recorded:
    return Recorded(
        place=(row.epoch, int(row.digits), row.seq),
        id=str(row.assessment_id),
        key=row.key,
        rating=row.rating,
        category=row.category,
        batch=row.batch,
        policy=row.policy,
        revision=row.revision,
    )

"""Labelled rows beside their verdicts, as columns; and the counts of each image, from which all else follows."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from uuid import UUID

import numpy as np

from consumer.evaluation.counts import (
    CATEGORIES,
    CATEGORY_RIGHT,
    COUNTS,
    EXCEPTION_RIGHT,
    EXCEPTIONS,
    FN,
    FP,
    PAIRS,
    PAIRS_RIGHT,
    TN,
    TP,
    Array,
)
from consumer.evaluation.scores import Codes, Flags

# Rows that the run is not about: they count neither as scored nor as unassessed.
EXCLUDED = frozenset({"bad_row", "other_policy", "other_model"})


@dataclass(frozen=True, slots=True)
class Judged:
    """A labelled row and what became of it.

    image: the same for rows about one image. code: why it is not scored: an error's, `open`, `cancelled`,
    `not_judged`, or one of EXCLUDED; None where it is. category, said: ids such as O4, or the label's own word.
    policy: what tells the rules apart that rows of one image were labelled under. groups: in the order of the run's.
    """

    row: str
    image: str
    uri: str
    unsafe: bool
    category: str | None = None
    policy: str | None = None
    exception: bool = False
    groups: tuple[str | None, ...] = ()
    code: str | None = None
    said_unsafe: bool = False
    said: str | None = None
    p_unsafe: float | None = None
    p_calibrated: float | None = None
    needs_review: bool = False
    assessment: UUID | None = None

    @property
    def right(self) -> bool:
        return self.code is None and self.unsafe == self.said_unsafe


@dataclass(slots=True)
class EvaluationSample:
    """All rows of a run. The arrays are of the scored ones, in the order of the rows."""

    rows: Sequence[Judged]
    scored: Sequence[Judged] = field(init=False)
    images: Codes = field(init=False)

    def __post_init__(self) -> None:
        self.scored = [row for row in self.rows if row.code is None]
        self.images = _numbered(row.image for row in self.scored)

    @property
    def not_scored(self) -> dict[str, int]:
        """How many rows are not, by code, most first."""
        counts = Counter(row.code for row in self.rows if row.code is not None)
        return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))

    @property
    def asked(self) -> int:
        """Rows that the run is about."""
        return len(self.rows) - sum(self.not_scored.get(code, 0) for code in EXCLUDED)

    def unassessed(self) -> tuple[Array, Array]:
        """Of each image: rows without a verdict, and rows that the run is about."""
        asked = [row for row in self.rows if row.code not in EXCLUDED]
        numbers = _numbered(row.image for row in asked)
        without = np.array([row.code is not None for row in asked], dtype=float)
        lost = np.asarray(np.bincount(numbers, weights=without), dtype=float)
        return lost, np.asarray(np.bincount(numbers), dtype=float)

    def column(self, name: str) -> Flags:
        return np.array([getattr(row, name) for row in self.scored], dtype=bool)

    def probabilities(self, name: str) -> tuple[Array, Flags]:
        """P(unsafe) of the scored rows, NaN where there is none; and which have one."""
        p = np.array([np.nan if (value := getattr(row, name)) is None else value for row in self.scored])
        return p, ~np.isnan(p)

    def clusters(self, inside: Flags | None = None) -> Array:
        """(images, COUNTS) of the scored rows, or of those `inside`."""
        chosen = range(len(self.scored)) if inside is None else np.flatnonzero(inside)
        rows = [self.scored[int(at)] for at in chosen]
        images = self.images if inside is None else _numbered(self.images[inside])
        counts = np.zeros((int(images.max()) + 1 if len(images) else 0, len(COUNTS)))
        np.add.at(counts, (images, np.array([_cell(row) for row in rows], dtype=np.int64)), 1)
        for count, flags in _flags(rows).items():
            np.add.at(counts[:, count], images, flags)
        _add_pairs(counts, rows, images)
        return counts


def _cell(row: Judged) -> int:
    if row.unsafe:
        return TP if row.said_unsafe else FN
    return FP if row.said_unsafe else TN


def _flags(rows: Sequence[Judged]) -> dict[int, Array]:
    columns = {
        CATEGORIES: [row.category is not None for row in rows],
        CATEGORY_RIGHT: [row.category is not None and row.category == row.said for row in rows],
        EXCEPTIONS: [row.exception for row in rows],
        EXCEPTION_RIGHT: [row.exception and row.right for row in rows],
    }
    return {count: np.array(flags, dtype=float) for count, flags in columns.items()}


def _add_pairs(counts: Array, rows: Sequence[Judged], images: Codes) -> None:
    """Pairs of rows of one image that people rated apart, each under rules of its own."""
    members: defaultdict[int, list[Judged]] = defaultdict(list)
    several = np.bincount(images, minlength=len(counts)) > 1 if len(images) else ()
    for row, image in zip(rows, images, strict=True):
        if several[image] and row.policy is not None:
            members[int(image)].append(row)
    for image, together in members.items():
        unsafe = [row for row in together if row.unsafe]
        for one in unsafe:
            apart = [other for other in together if not other.unsafe and other.policy != one.policy]
            counts[image, PAIRS] += len(apart)
            counts[image, PAIRS_RIGHT] += sum(one.right and other.right for other in apart)


def _numbered(values: Iterable[object]) -> Codes:
    """Each value by the place of its first appearance."""
    numbers: dict[object, int] = {}
    return np.array([numbers.setdefault(value, len(numbers)) for value in values], dtype=np.int64)

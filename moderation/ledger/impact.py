"""Impact: what a policy change did to the verdicts that were judged again. Those without a new verdict are counted apart."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Engine, text

from moderation.ledger.engine import transaction
from moderation.ledger.reassess import REPORT_S, RevisionChange
from moderation.verdict import Rating

Row = dict[str, Any]

_VERDICTS = text("""
    SELECT count(*) FROM verdict v JOIN assessment a ON a.id = v.assessment_id
    WHERE v.policy_revision_id = :before AND a.purpose IS NULL
""")

_PAIRS = """
    FROM verdict o
    JOIN assessment n ON n.reassesses = o.assessment_id AND n.policy_revision_id = :after
    LEFT JOIN verdict v ON v.assessment_id = n.id
    WHERE o.policy_revision_id = :before
"""

_GROUPS = text(f"""
    SELECT n.state, CASE WHEN n.state = 'failed' THEN n.error_code END AS error_code,
           o.rating AS rating_before, o.category AS category_before,
           v.rating AS rating_after, v.category AS category_after,
           v.bytes_sha256 <> o.bytes_sha256 AS image_changed, count(*) AS n
    {_PAIRS} GROUP BY 1, 2, 3, 4, 5, 6, 7
""")

_FLIPPED = text(f"""
    SELECT n.id, o.assessment_id AS before, n.uri, n.key, n.metadata, o.rating AS rating_before,
           v.rating AS rating_after, o.category AS category_before, v.category AS category_after,
           v.rationale, v.needs_review, v.bytes_sha256 <> o.bytes_sha256 AS image_changed
    {_PAIRS} AND v.rating <> o.rating
    ORDER BY v.rating DESC, v.seq LIMIT :limit
""")


@dataclass(slots=True)
class Impact:
    """The flips and all that did not flip; every judged-again verdict is counted exactly once.

    verdicts: under the earlier revision, judged again or not. to_unsafe: by the category found now;
    to_safe: by the category that was found before. image_changed: of those judged again, how many images had
    other bytes by then, so that a flip may be theirs and not the policy's. items: the flips, at most `limit`.
    """

    verdicts: int
    to_unsafe: Counter[str] = field(default_factory=Counter)
    to_safe: Counter[str] = field(default_factory=Counter)
    still_safe: int = 0
    still_unsafe: int = 0
    other_category: int = 0  # of the still unsafe
    open: int = 0  # queued or running
    cancelled: int = 0
    failed: Counter[str] = field(default_factory=Counter)  # by error code
    image_changed: int = 0
    items: list[Row] = field(default_factory=list)

    @property
    def flips(self) -> int:
        return self.to_unsafe.total() + self.to_safe.total()

    @property
    def judged(self) -> int:
        """Judged again, with a verdict."""
        return self.flips + self.still_safe + self.still_unsafe

    @property
    def reassessed(self) -> int:
        """Enqueued to be judged again, whatever came of it."""
        return self.judged + self.open + self.failed.total() + self.cancelled


def impact(engine: Engine, change: RevisionChange, *, limit: int) -> Impact:
    """What standing verdicts under the later revision say against those that they judged again."""
    values = {"before": change.before, "after": change.after}
    # One snapshot for counts and items: workers go on meanwhile.
    with transaction(engine, patience_s=REPORT_S, isolation="REPEATABLE READ") as connection:
        effect = Impact(verdicts=int(connection.execute(_VERDICTS, values).scalar_one()))
        _count(effect, _rows(connection, _GROUPS, values))
        effect.items = list(_rows(connection, _FLIPPED, values | {"limit": limit}))
    return effect


def _rows(connection: Connection, statement: Any, values: Row) -> Iterable[Row]:
    return (dict(row) for row in connection.execute(statement, values).mappings())


def _count(effect: Impact, groups: Iterable[Row]) -> None:
    for group in groups:
        n = group["n"]
        effect.image_changed += n if group["image_changed"] else 0
        match group["rating_before"], group["rating_after"]:
            case Rating.SAFE, Rating.UNSAFE:
                effect.to_unsafe[group["category_after"]] += n
            case Rating.UNSAFE, Rating.SAFE:
                effect.to_safe[group["category_before"]] += n
            case Rating.SAFE, Rating.SAFE:
                effect.still_safe += n
            case Rating.UNSAFE, Rating.UNSAFE:
                effect.still_unsafe += n
                effect.other_category += n if group["category_before"] != group["category_after"] else 0
            case _:
                _count_unjudged(effect, group, n)


def _count_unjudged(effect: Impact, group: Row, n: int) -> None:
    match group["state"]:
        case "failed":
            effect.failed[group["error_code"]] += n
        case "cancelled":
            effect.cancelled += n
        case _:
            effect.open += n

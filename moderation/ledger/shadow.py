"""Shadow: a share of a policy's live items is judged under another revision as well, at low priority, without effect.

The items are drawn by a trigger as they are submitted, in the same transaction (vetline_submitted): none is missed that
a fast worker ends at once, and its URI is still whole. The same item is always drawn, or never.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Engine, text

from moderation.errors import InvalidSubmission
from moderation.ledger.engine import autocommit, transaction
from moderation.ledger.registry import find

_PATIENCE_S = 600.0

_START = text("""
    INSERT INTO shadow (policy_revision_id, share, started_by) VALUES (:revision, :share, :by)
    ON CONFLICT DO NOTHING RETURNING id
""")
_STOP = text("""
    UPDATE shadow SET stopped_at = now(), stopped_by = :by
    WHERE policy_revision_id = :revision AND stopped_at IS NULL RETURNING id
""")
_SHADOWS = text("""
    SELECT s.id, r.policy, r.revision, s.share, s.started_by, s.started_at, s.stopped_by, s.stopped_at
    FROM shadow s JOIN policy_revision r ON r.id = s.policy_revision_id
    WHERE CAST(:revision AS integer) IS NULL OR s.policy_revision_id = :revision ORDER BY s.id DESC
""")

_BATCH = (
    "'shadow-' || CAST(:id AS integer) || '-' || CAST(:policy AS text) || '-' || CAST(:number AS integer)"
)
_PAIRS = f"""
    FROM assessment a JOIN verdict live ON live.assessment_id = a.purpose_of
    JOIN verdict v ON v.assessment_id = a.id
    WHERE a.purpose = 'shadow' AND a.batch = {_BATCH}
"""
# Kinds of images: how many of their items were paired and turned which way, and how many images are of the kind.
_KINDS = text(f"""
    SELECT n, to_unsafe, to_safe, unsafe_before, count(*) AS images FROM (
        SELECT count(*) AS n,
               count(*) FILTER (WHERE live.rating = 'Safe' AND v.rating = 'Unsafe') AS to_unsafe,
               count(*) FILTER (WHERE live.rating = 'Unsafe' AND v.rating = 'Safe') AS to_safe,
               count(*) FILTER (WHERE live.rating = 'Unsafe') AS unsafe_before
        {_PAIRS} GROUP BY live.pixels_sha256
    ) AS of_image GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4
""")
_FLIPS = text(f"""
    SELECT a.id, live.assessment_id AS before, vetline_shown(a.uri) AS uri, live.rating AS was, live.category AS was_for,
           v.rating AS is_now, v.category AS is_for
    {_PAIRS} AND v.rating <> live.rating ORDER BY v.rating DESC, v.seq LIMIT :limit
""")
_STATES = text(f"""
    SELECT state, error_code, count(*) AS n FROM assessment a
    WHERE a.purpose = 'shadow' AND a.batch = {_BATCH} GROUP BY 1, 2 ORDER BY n DESC
""")
_COST = text(f"""
    SELECT coalesce(sum((t.timings_ms ->> 'judge')::float8), 0) / 1000 AS judge_s,
           coalesce(sum((t.timings_ms ->> 'fetch')::float8), 0) / 1000 AS fetch_s,
           coalesce(sum(k.prompt), 0)::bigint AS prompt_tokens, coalesce(sum(k.answer), 0)::bigint AS answer_tokens
    FROM assessment a JOIN attempt t ON t.assessment_id = a.id
    LEFT JOIN LATERAL (
        SELECT sum((ask ->> 'prompt_tokens')::bigint) AS prompt, sum((ask ->> 'completion_tokens')::bigint) AS answer
        FROM jsonb_array_elements(t.asks) AS ask
    ) k ON true
    WHERE a.purpose = 'shadow' AND a.batch = {_BATCH}
""")


@dataclass(frozen=True, slots=True)
class Shadow:
    """share: of the policy's live items, above 0, up to 1."""

    id: int
    policy: str
    revision: int
    share: float
    started_by: str
    started_at: datetime
    stopped_by: str | None
    stopped_at: datetime | None

    @property
    def ref(self) -> str:
        return f"{self.policy}@{self.revision}"


@dataclass(frozen=True, slots=True)
class Kind:
    """Images whose paired items turned alike. n: items of each; images: how many such images."""

    n: int
    to_unsafe: int
    to_safe: int
    unsafe_before: int
    images: int


@dataclass(frozen=True, slots=True)
class Seen:
    """What a shadow has found. states: of its items, by state and error code. cost: seconds and tokens that it took."""

    kinds: list[Kind]
    flips: list[dict[str, Any]]
    states: list[dict[str, Any]]
    cost: dict[str, Any]


def start_shadow(engine: Engine, ref: str, share: float, *, by: str) -> Shadow:
    """Judge this share of the policy's live items under a revision too. Raises InvalidSubmission where it is at it."""
    entry = find(engine, ref)
    if entry.current:
        raise InvalidSubmission(f"{entry.ref} is live: a shadow is of another revision")
    values = {"revision": entry.id, "share": share, "by": by}
    with autocommit(engine) as connection:
        if connection.execute(_START, values).first() is None:
            raise InvalidSubmission(
                f"{entry.ref} is in shadow already; `vetline shadow stop {entry.ref}` ends that"
            )
    return shadow_of(engine, ref)


def stop_shadow(engine: Engine, ref: str, *, by: str) -> bool:
    """Draw no more items; what is queued is still judged. False where it was not in shadow."""
    with autocommit(engine) as connection:
        return connection.execute(_STOP, {"revision": find(engine, ref).id, "by": by}).first() is not None


def shadows(engine: Engine, revision: int | None = None) -> list[Shadow]:
    """The newest first. revision: only of this one, by its id in the ledger."""
    with autocommit(engine) as connection:
        return [Shadow(*row) for row in connection.execute(_SHADOWS, {"revision": revision})]


def shadow_of(engine: Engine, ref: str) -> Shadow:
    """The newest of a revision. Raises InvalidSubmission where it never was in shadow."""
    entry = find(engine, ref)
    found = shadows(engine, entry.id)
    if not found:
        raise InvalidSubmission(f"{entry.ref} was never in shadow; `vetline shadow start {entry.ref}`")
    return found[0]


def seen(engine: Engine, shadow: Shadow, *, limit: int) -> Seen:
    """What it has found by now, in one snapshot. limit: of the flips."""
    values = {"id": shadow.id, "policy": shadow.policy, "number": shadow.revision, "limit": limit}
    with transaction(engine, patience_s=_PATIENCE_S, isolation="REPEATABLE READ") as connection:
        return Seen(
            kinds=[Kind(*row) for row in connection.execute(_KINDS, values)],
            flips=[dict(row) for row in connection.execute(_FLIPS, values).mappings()],
            states=[dict(row) for row in connection.execute(_STATES, values).mappings()],
            cost=dict(connection.execute(_COST, values).mappings().one()),
        )

"""Golden items: images whose rating is known, judged again among live ones; and whether scores drift.

An item is judged beside a share of the policy's live items, under the revision and at the priority that they have, and
never answered from known pixels: what is measured is the model that runs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log
from typing import Any
from uuid import UUID

from pydantic_core import to_json
from sqlalchemy import Engine, text

from moderation.ledger.engine import autocommit, transaction

LAST = 200  # judgements of a policy's golden items that its recall and specificity are of

_ADD = text("""
    INSERT INTO golden_item (id, policy, uri, unsafe, category, added_by)
    SELECT gen_random_uuid(), :policy, uri, unsafe, category, :by
    FROM json_to_recordset(CAST(:rows AS json)) AS r (uri text, unsafe boolean, category text)
    ON CONFLICT DO NOTHING
""")
_REMOVE = text("""
    UPDATE golden_item SET removed_at = now(), removed_by = :by
    WHERE policy = :policy AND removed_at IS NULL AND (cardinality(CAST(:ids AS uuid[])) = 0 OR id = ANY(:ids))
""")
_RATE = text("""
    INSERT INTO golden_rate (policy, share, set_by) VALUES (:policy, :share, :by)
    ON CONFLICT (policy) DO UPDATE SET share = excluded.share, set_by = excluded.set_by, set_at = now()
""")
_NO_RATE = text("DELETE FROM golden_rate WHERE policy = :policy")
_SETS = text("""
    SELECT g.policy, count(*) AS items, count(*) FILTER (WHERE g.unsafe) AS unsafe, max(q.share) AS share
    FROM golden_item g LEFT JOIN golden_rate q ON q.policy = g.policy
    WHERE g.removed_at IS NULL GROUP BY g.policy ORDER BY g.policy
""")
# By the partial index of purposes: each policy's last judgements, failures among them.
_RECENT = text("""
    SELECT q.policy, count(*) FILTER (WHERE j.unsafe AND j.rating = 'Unsafe') AS tp,
           count(*) FILTER (WHERE j.unsafe AND j.rating = 'Safe') AS fn,
           count(*) FILTER (WHERE NOT j.unsafe AND j.rating = 'Unsafe') AS fp,
           count(*) FILTER (WHERE NOT j.unsafe AND j.rating = 'Safe') AS tn,
           count(*) FILTER (WHERE j.state = 'failed') AS failed
    FROM golden_rate q LEFT JOIN LATERAL (
        SELECT g.unsafe, v.rating, a.state FROM assessment a
        JOIN golden_item g ON g.id = a.purpose_of LEFT JOIN verdict v ON v.assessment_id = a.id
        WHERE a.batch = 'golden-' || q.policy AND a.state IN ('done', 'failed')
        ORDER BY a.ended_at DESC LIMIT :last
    ) j ON true
    GROUP BY q.policy
""")
# Ids are in the order of time: 168 looks into each week, an hour apart, each at most so many rows on from there. So it
# costs the same however many verdicts a week has.
_SCORES = text("""
    SELECT r.policy, w.week, width_bucket(v.p_unsafe, 0, 1, 10) AS bin, count(*) AS n
    FROM generate_series(0, 1) AS w (week), generate_series(0, 167) AS h (hour),
    LATERAL (SELECT now() - make_interval(days => 7 * (w.week + 1), hours => -h.hour) AS start) s,
    LATERAL (
        SELECT v.p_unsafe, v.policy_revision_id FROM verdict v JOIN assessment a ON a.id = v.assessment_id
        WHERE v.assessment_id >= vetline_id_of_time(s.start)
            AND v.assessment_id < vetline_id_of_time(s.start + interval '1 hour')
            AND v.p_unsafe IS NOT NULL AND a.purpose IS NULL
        ORDER BY v.assessment_id LIMIT :each
    ) v
    JOIN policy_revision r ON r.id = v.policy_revision_id
    GROUP BY 1, 2, 3
""")
_EACH = 100  # verdicts of an hour


@dataclass(frozen=True, slots=True)
class GoldenSet:
    """A policy's golden items. share: of its live items that one is judged beside; None: none are."""

    policy: str
    items: int
    unsafe: int
    share: float | None


@dataclass(frozen=True, slots=True)
class NewItem:
    uri: str
    unsafe: bool
    category: str | None


def add_golden(engine: Engine, policy: str, items: Sequence[NewItem], *, by: str) -> int:
    """How many are new: one place is one item of a policy."""
    rows = to_json([{"uri": i.uri, "unsafe": i.unsafe, "category": i.category} for i in items]).decode()
    with autocommit(engine) as connection:
        return connection.execute(_ADD, {"policy": policy, "rows": rows, "by": by}).rowcount


def remove_golden(engine: Engine, policy: str, ids: Sequence[UUID] = (), *, by: str) -> int:
    """Judge these no more, or all of the policy's where none is named; how many that were."""
    with autocommit(engine) as connection:
        return connection.execute(_REMOVE, {"policy": policy, "ids": list(ids), "by": by}).rowcount


def set_rate(engine: Engine, policy: str, share: float, *, by: str) -> None:
    """Judge one beside this share of the policy's live items; 0 ends it."""
    with autocommit(engine) as connection:
        if share:
            connection.execute(_RATE, {"policy": policy, "share": share, "by": by})
        else:
            connection.execute(_NO_RATE, {"policy": policy})


def golden_sets(engine: Engine) -> list[GoldenSet]:
    with autocommit(engine) as connection:
        return [GoldenSet(*row) for row in connection.execute(_SETS)]


def recent(engine: Engine) -> list[dict[str, Any]]:
    """Of each policy that has a rate, the last LAST judgements of golden items: tp, fn, fp, tn and failed."""
    with autocommit(engine) as connection:
        return [dict(row) for row in connection.execute(_RECENT, {"last": LAST}).mappings()]


def weekly_scores(engine: Engine) -> list[dict[str, Any]]:
    """How P(unsafe) of live verdicts is spread: policy, week (0 the last, 1 the one before), bin 1 to 11, n."""
    with transaction(engine, patience_s=60) as connection:
        return [dict(row) for row in connection.execute(_SCORES, {"each": _EACH}).mappings()]


def population_stability(rows: Sequence[dict[str, Any]], *, least: int = 200) -> dict[str, float]:
    """PSI of the last week against the one before, by policy; without those that have fewer than `least` in a week.

    Below 0.1 nothing has moved, above 0.25 much has: the usual reading. An empty bin counts as half a verdict.
    """
    counts: dict[str, tuple[dict[int, int], dict[int, int]]] = {}
    for row in rows:
        weeks = counts.setdefault(row["policy"], ({}, {}))
        weeks[row["week"]][min(row["bin"], 10)] = weeks[row["week"]].get(min(row["bin"], 10), 0) + row["n"]
    found = {}
    for policy, (now, before) in counts.items():
        totals = sum(now.values()), sum(before.values())
        if min(totals) < least:
            continue
        shares = [
            (max(now.get(b, 0), 0.5) / totals[0], max(before.get(b, 0), 0.5) / totals[1])
            for b in range(1, 11)
        ]
        found[policy] = sum((is_now - was) * log(is_now / was) for is_now, was in shares)
    return found

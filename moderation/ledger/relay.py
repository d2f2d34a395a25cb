"""The relay: chooses which due rows ring next. High priority first, a share for low, and lanes in turn.

A lane is what belongs to one tenant, batch and policy. Each lane is found in one index step, however many rows wait
in it, so a paused or capped batch of millions costs one look and delays nobody. Within a priority the lanes take
turns: a bucket submitted overnight does not stand before ten images of somebody else.
"""

import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import Connection, Engine, text

from moderation.assessment import Priority
from moderation.ledger.engine import autocommit, transaction
from moderation.ledger.sweep import take_the_sweep
from moderation.ledger.tables import LANE

_LANES = 500  # looked at in one pass for each priority, from a random one on: where there are more, all have their turn
# Rows that a lane may bring at once, so that a few long lanes among many short ones fill the room.
_LEAST = 50

# 'epoch' stands for what was freed, given back or lost on the way: it goes first, and past a full queue.
_UNTIL = "CASE WHEN :only_first THEN timestamptz 'epoch' ELSE now() END"

# From :start upwards, then round to it; each step asks the index for the first row of the next lane.
_FIND_LANES = text(f"""
    WITH RECURSIVE up AS (
        (SELECT {LANE} AS lane, tenant, batch, policy, ring_at FROM assessment
         WHERE priority = :priority AND ring_at IS NOT NULL AND {LANE} >= :start
         ORDER BY {LANE}, ring_at LIMIT 1)
        UNION ALL
        SELECT n.* FROM up CROSS JOIN LATERAL (
            SELECT {LANE}, tenant, batch, policy, ring_at FROM assessment
            WHERE priority = :priority AND ring_at IS NOT NULL AND {LANE} > up.lane
            ORDER BY {LANE}, ring_at LIMIT 1
        ) AS n
    ), round AS (
        (SELECT {LANE} AS lane, tenant, batch, policy, ring_at FROM assessment
         WHERE priority = :priority AND ring_at IS NOT NULL AND {LANE} < :start
         ORDER BY {LANE}, ring_at LIMIT 1)
        UNION ALL
        SELECT n.* FROM round CROSS JOIN LATERAL (
            SELECT {LANE}, tenant, batch, policy, ring_at FROM assessment
            WHERE priority = :priority AND ring_at IS NOT NULL AND {LANE} > round.lane AND {LANE} < :start
            ORDER BY {LANE}, ring_at LIMIT 1
        ) AS n
    ), found AS (
        (SELECT * FROM up LIMIT :limit) UNION ALL (SELECT * FROM round LIMIT :limit)
    )
    SELECT lane, tenant, batch, policy FROM found WHERE ring_at <= {_UNTIL} LIMIT :limit
""")

_RING = text(f"""
    WITH wanted AS (
        SELECT * FROM unnest(CAST(:lanes AS bigint[]), CAST(:most AS integer[])) AS w (lane, most)
    ), first AS (
        SELECT a.id, a.ring_at, row_number() OVER (PARTITION BY w.lane ORDER BY a.ring_at) AS turn
        FROM wanted w CROSS JOIN LATERAL (
            SELECT id, ring_at FROM assessment
            WHERE priority = :priority AND ring_at IS NOT NULL AND {LANE} = w.lane AND ring_at <= {_UNTIL}
            ORDER BY ring_at LIMIT w.most
        ) AS a
    ), due AS (
        SELECT a.id, f.turn FROM assessment a
        JOIN (SELECT * FROM first ORDER BY turn, ring_at LIMIT :limit) AS f ON f.id = a.id
        WHERE a.ring_at IS NOT NULL
        ORDER BY a.id FOR UPDATE OF a SKIP LOCKED
    )
    UPDATE assessment a SET ring_at = NULL, rung_at = now()
    FROM due, policy_revision r
    WHERE a.id = due.id AND r.id = a.policy_revision_id
    RETURNING a.id, a.uri, r.policy || '@' || r.revision AS policy, a.priority, a.crashes, a.submission_id, due.turn,
        a.tenant, a.batch
""")

# Rung, and neither claimed nor lost yet; urgent as the doorbell means it.
_RUNG = text("""
    SELECT count(*) FILTER (WHERE priority = 0 OR crashes > 0) AS urgent,
        count(*) FILTER (WHERE priority > 0 AND crashes = 0) AS others
    FROM assessment WHERE rung_at IS NOT NULL
""")

_PAUSED = text("SELECT scope, name FROM pause")

_ROOM = text("""
    WITH under_way AS MATERIALIZED (
        SELECT batch, tenant, count(*) AS n FROM (
            SELECT batch, tenant FROM assessment WHERE state = 'running'
            UNION ALL SELECT batch, tenant FROM assessment WHERE rung_at IS NOT NULL
        ) AS each GROUP BY batch, tenant
    )
    SELECT c.scope, c.name, (c.in_hand - coalesce(sum(u.n), 0))::integer AS room
    FROM cap c LEFT JOIN under_way u
        ON (c.scope = 'batch' AND u.batch = c.name) OR (c.scope = 'tenant' AND u.tenant = c.name)
    GROUP BY c.scope, c.name, c.in_hand
""")

_COUNT_RUNG = text("UPDATE sweep SET rung = rung + :rung WHERE id = 1")

Target = tuple[str, str]  # a scope and a name in it


@dataclass(frozen=True, slots=True)
class Due:
    """A row that the doorbell is to ring."""

    id: UUID
    uri: str
    policy: str  # id@revision
    priority: int
    crashes: int
    submission_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class PushedCounts:
    """Rows whose message waits, or was popped a moment ago."""

    urgent: int
    others: int


@dataclass(frozen=True, slots=True)
class _Lane:
    lane: int
    tenant: str | None
    batch: str | None
    policy: str

    @property
    def targets(self) -> list[Target]:
        """What a pause or a cap may name this lane by."""
        named = (("batch", self.batch), ("tenant", self.tenant), ("policy", self.policy), ("everything", ""))
        return [(scope, name) for scope, name in named if name is not None]


def count_pushed(engine: Engine) -> PushedCounts:
    """How many rows are rung and not claimed."""
    with autocommit(engine) as connection:
        row = connection.execute(_RUNG).one()
        return PushedCounts(row.urgent, row.others)


def ring_due(
    engine: Engine,
    ring: Callable[[Sequence[Due]], object],
    *,
    urgent: int,
    others: int,
    low_share: float = 0.2,
    only_first: bool = False,
) -> int:
    """Hand due rows to `ring`, most urgent first, and say how many: up to `urgent` high ones, `others` of the rest.

    low_share: of the room for others, for as long as low and normal rows wait; what one leaves, the other may use.
    only_first: none but those that were freed, given back or lost.
    If `ring` raises, nothing is noted and they stay due; if the commit fails, they ring twice, which is harmless.
    """
    with transaction(engine) as connection:
        if not take_the_sweep(connection):
            return 0
        relay = _Relay(connection, only_first=only_first)
        due = relay.take(Priority.HIGH, urgent)
        # Rounded as if by lot, so that the smallest room is low's once in a while.
        kept = min(others, int(others * low_share + random.random()))  # noqa: S311 - no secret
        low = relay.take(Priority.LOW, kept)
        normal = relay.take(Priority.NORMAL, others - len(low))
        due += [*normal, *low, *relay.take(Priority.LOW, others - len(low) - len(normal))]
        if due:
            ring(due)
            connection.execute(_COUNT_RUNG, {"rung": len(due)})
        return len(due)


class _Relay:
    """One pass, in one transaction: what is paused and how much room each cap leaves is read once."""

    def __init__(self, connection: Connection, *, only_first: bool) -> None:
        self._connection = connection
        self._only_first = only_first
        self._paused: set[Target] = {(row.scope, row.name) for row in connection.execute(_PAUSED)}
        self._room: dict[Target, int] = {(row.scope, row.name): row.room for row in connection.execute(_ROOM)}

    def take(self, priority: Priority, limit: int) -> list[Due]:
        """Up to `limit` rows of this priority, marked as rung, lane by lane in turn."""
        if limit <= 0 or ("everything", "") in self._paused:
            return []
        lanes = self._lanes(priority)
        most = self._shared_out(lanes, limit)
        if not most:
            return []
        values = {
            "priority": int(priority),
            "lanes": list(most),
            "most": list(most.values()),
            "limit": limit,
            "only_first": self._only_first,
        }
        rows = sorted(self._connection.execute(_RING, values), key=lambda row: (row.turn, row.id))
        self._note(row for row in rows)
        return [
            Due(row.id, row.uri, row.policy, row.priority, row.crashes, row.submission_id) for row in rows
        ]

    def _lanes(self, priority: Priority) -> list[_Lane]:
        start = random.randrange(-(2**63), 2**63)  # noqa: S311 - no secret
        values = {"priority": int(priority), "start": start, "limit": _LANES, "only_first": self._only_first}
        lanes = [_Lane(**row._mapping) for row in self._connection.execute(_FIND_LANES, values)]
        return [lane for lane in lanes if self._paused.isdisjoint(lane.targets)]

    def _shared_out(self, lanes: Sequence[_Lane], limit: int) -> dict[int, int]:
        """The most rows that each lane may bring; lanes under one cap share what it leaves."""
        room = dict(self._room)
        each = max(_LEAST, -(-limit // max(1, len(lanes))))
        most: dict[int, int] = {}
        for lane in lanes:
            capped = [target for target in lane.targets if target in room]
            count = min([each, limit, *(room[target] for target in capped)])
            if count > 0:
                most[lane.lane] = count
                for target in capped:
                    room[target] -= count
        return most

    def _note(self, rows: Iterable[object]) -> None:
        """What was rung has used up room for the passes after this one."""
        used: defaultdict[Target, int] = defaultdict(int)
        for row in rows:
            used["batch", row.batch] += 1  # type: ignore[attr-defined]  # a row of the statement above
            used["tenant", row.tenant] += 1  # type: ignore[attr-defined]  # as above
        for target in self._room.keys() & used.keys():
            self._room[target] -= used[target]

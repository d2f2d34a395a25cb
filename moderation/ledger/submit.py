"""Submit: writes a row for each image and policy, committed before any message is sent."""

from collections.abc import Mapping, Sequence
from uuid import UUID

from pydantic_core import to_json
from sqlalchemy import Connection, Engine, text
from uuid_utils.compat import uuid7

from moderation.assessment import Submission, Ticket
from moderation.ledger.engine import autocommit
from moderation.ledger.pauses import IS_CAPPED, IS_PAUSED
from moderation.ledger.policies import PinnedPolicy

# What is given, as one JSON document: for a thousand rows half of what arrays of each column cost the sender.
_GIVEN = {
    "id": "uuid", "uri": "text", "policy": "text", "policy_revision_id": "integer", "key": "text", "batch": "text",
    "priority": "smallint", "metadata": "jsonb", "submission_id": "uuid", "reuse": "boolean", "tenant": "text",
    "not_before": "timestamptz", "expires_at": "timestamptz",
}  # fmt: skip
_COLUMNS = ", ".join(_GIVEN)

# ON CONFLICT names no constraint on purpose: a repeat after a lost reply hits the primary key, a known key the other.
_INSERT = text(f"""
    INSERT INTO assessment ({_COLUMNS}, ring_at, rung_at)
    SELECT {_COLUMNS}, CASE WHEN NOT by_us THEN greatest(now(), not_before) END, CASE WHEN by_us THEN now() END
    FROM (
        SELECT *, CAST(:rung AS boolean) AND NOT {IS_PAUSED} AND NOT {IS_CAPPED}
            AND coalesce(not_before <= now(), true) AS by_us
        FROM json_to_recordset(CAST(:rows AS json)) AS a ({", ".join(f"{name} {kind}" for name, kind in _GIVEN.items())})
    ) AS given
    ON CONFLICT DO NOTHING
    RETURNING id, rung_at IS NOT NULL AS rung
""")

_KNOWN = text("""
    SELECT a.id, a.policy, a.key, a.state = 'cancelled' AS cancelled, r.revision
    FROM unnest(CAST(:policies AS text[]), CAST(:keys AS text[])) AS wanted (policy, key)
    JOIN assessment a ON a.policy = wanted.policy AND a.key = wanted.key
    JOIN policy_revision r ON r.id = a.policy_revision_id
""")


def new_id() -> UUID:
    """A UUIDv7: made by the submitter so that a repeat is harmless, and in order of time so that the index is kind."""
    return uuid7()


def submit(
    engine: Engine,
    submissions: Sequence[Submission],
    pinned: Mapping[str, PinnedPolicy],
    ids: Sequence[UUID],
    *,
    rung: bool = False,
) -> list[Ticket]:
    """One ticket for each submission, in order. Committed when this returns; safe to repeat with the same ids.

    pinned: the revision for each policy ref that the submissions name.
    rung: whether the caller rings them itself, as far as the tickets then say so; the relay rings the others, and
    those whose time has not come.
    Raises LedgerUnavailable: then it may or may not be committed, and repeating settles it.
    """
    rows = [(s, pinned[s.policy], id_) for s, id_ in zip(submissions, ids, strict=True)]
    with autocommit(engine) as connection:
        written = connection.execute(_INSERT, {"rows": _as_json(rows), "rung": rung})
        ours = {row[0]: row[1] for row in written.all()}
        known = _existing(connection, [row for row in rows if row[2] not in ours])
    return [
        known.get(id_) or Ticket(id_, pin.ref, known=False, rung=ours.get(id_, rung)) for _, pin, id_ in rows
    ]


def _as_json(rows: Sequence[tuple[Submission, PinnedPolicy, UUID]]) -> str:
    """What a submission says of itself, checked as it is, under the columns' names."""
    entries = [
        {
            "id": id_,
            "uri": s.uri,
            "policy": pin.policy,
            "policy_revision_id": pin.id,
            "key": s.key,
            "batch": s.batch,
            "priority": s.priority,
            "metadata": s.metadata,
            "submission_id": s.submission_id,
            "reuse": s.reuse,
            "tenant": s.tenant,
            "not_before": s.not_before,
            "expires_at": s.expires_at,
        }
        for s, pin, id_ in rows
    ]
    return to_json(entries).decode()


def _existing(
    connection: Connection, rows: Sequence[tuple[Submission, PinnedPolicy, UUID]]
) -> dict[UUID, Ticket]:
    """The tickets of rows that were there before: by their key, or by their id after a lost reply."""
    keyed = [(pin.policy, s.key) for s, pin, _ in rows if s.key is not None]
    if not keyed:
        return {}
    policies, keys = zip(*keyed, strict=True)
    existing = {
        (row.policy, row.key): row
        for row in connection.execute(_KNOWN, {"policies": list(policies), "keys": list(keys)})
    }
    tickets = {}
    for s, pin, id_ in rows:
        if (known_row := existing.get((pin.policy, s.key or ""))) is not None and known_row.id != id_:
            ref = f"{pin.policy}@{known_row.revision}"
            tickets[id_] = Ticket(known_row.id, ref, known=True, cancelled=known_row.cancelled)
    return tickets

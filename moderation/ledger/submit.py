"""Submit: a row for each image and policy, committed before anybody is told."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from pydantic_core import to_json
from sqlalchemy import Connection, Engine, text
from uuid_utils.compat import uuid7

from moderation.assessment import Submission, Ticket
from moderation.ledger.engine import reaching_postgres
from moderation.ledger.pauses import IS_CAPPED, IS_PAUSED
from moderation.ledger.policies import PinnedPolicy

# ON CONFLICT names no constraint on purpose: a repeat after a lost reply hits the primary key, a known key the other.
_INSERT = text(f"""
    INSERT INTO assessment (id, uri, policy, policy_revision_id, key, batch, priority, metadata, submission_id, reuse,
                            tenant, ring_at, rung_at)
    SELECT id, uri, policy, revision, key, batch, priority, CAST(metadata AS jsonb), submission, reuse, tenant,
           CASE WHEN NOT by_us THEN now() END, CASE WHEN by_us THEN now() END
    FROM (SELECT *, CAST(:rung AS boolean) AND NOT {IS_PAUSED} AND NOT {IS_CAPPED} AS by_us FROM unnest(
        CAST(:ids AS uuid[]), CAST(:uris AS text[]), CAST(:policies AS text[]), CAST(:revisions AS integer[]),
        CAST(:keys AS text[]), CAST(:batches AS text[]), CAST(:priorities AS smallint[]),
        CAST(:metadata AS text[]), CAST(:submission_ids AS uuid[]), CAST(:reuses AS boolean[]),
        CAST(:tenants AS text[])
    ) AS a (id, uri, policy, revision, key, batch, priority, metadata, submission, reuse, tenant)) AS given
    ON CONFLICT DO NOTHING
    RETURNING id, rung_at IS NOT NULL AS rung
""")

_KNOWN = text("""
    SELECT a.id, a.policy, a.key, r.revision
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
    rung: whether the caller rings them itself, as far as the tickets then say so; the relay rings the others.
    Raises LedgerUnavailable: then it may or may not be committed, and repeating settles it.
    """
    rows = [(s, pinned[s.policy], id_) for s, id_ in zip(submissions, ids, strict=True)]
    with reaching_postgres(), engine.connect() as connection:
        values = _columns(rows) | {"rung": rung}
        ours = {row.id: row.rung for row in connection.execute(_INSERT, values)}
        known = _known(connection, [row for row in rows if row[2] not in ours])
    return [
        known.get(id_) or Ticket(id_, pin.ref, known=False, rung=ours.get(id_, rung)) for _, pin, id_ in rows
    ]


def _columns(rows: Sequence[tuple[Submission, PinnedPolicy, UUID]]) -> dict[str, Any]:
    return {
        "ids": [id_ for _, _, id_ in rows],
        "uris": [s.uri for s, _, _ in rows],
        "policies": [pin.policy for _, pin, _ in rows],
        "revisions": [pin.id for _, pin, _ in rows],
        "keys": [s.key for s, _, _ in rows],
        "batches": [s.batch for s, _, _ in rows],
        "priorities": [int(s.priority) for s, _, _ in rows],
        "metadata": [None if s.metadata is None else to_json(s.metadata).decode() for s, _, _ in rows],
        "submission_ids": [s.submission_id for s, _, _ in rows],
        "reuses": [s.reuse for s, _, _ in rows],
        "tenants": [s.tenant for s, _, _ in rows],
    }


def _known(
    connection: Connection, rows: Sequence[tuple[Submission, PinnedPolicy, UUID]]
) -> dict[UUID, Ticket]:
    """The tickets of rows that were there before: by their key, or by their id after a lost reply."""
    keyed = [(pin.policy, s.key) for s, pin, _ in rows if s.key is not None]
    if not keyed:
        return {}
    policies, keys = zip(*keyed, strict=True)
    found = {
        (row.policy, row.key): (row.id, row.revision)
        for row in connection.execute(_KNOWN, {"policies": list(policies), "keys": list(keys)})
    }
    tickets = {}
    for s, pin, id_ in rows:
        if (standing := found.get((pin.policy, s.key or ""))) is not None and standing[0] != id_:
            tickets[id_] = Ticket(standing[0], f"{pin.policy}@{standing[1]}", known=True)
    return tickets

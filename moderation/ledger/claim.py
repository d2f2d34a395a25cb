"""Claim: the right to work on a row, under a lease that is renewed and a fence that only grows."""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any
from uuid import UUID

from sqlalchemy import Engine, TextClause, text

from moderation.assessment import Claim
from moderation.errors import LedgerUnavailable
from moderation.ledger.engine import reaching_postgres

# It waits for a lock rather than skip the row: the sweeper still holds it when a fast worker answers the ring, and a
# skipped row's message would be gone.
_CLAIM = """
    UPDATE assessment SET
        state = 'running', attempt = attempt + 1, charged = charged + 1, worker = :worker,
        claimed_at = now(), lease_until = now() + make_interval(secs => :lease_s),
        not_before = NULL, ring_at = NULL, rung_at = NULL
    WHERE id IN (
        SELECT id FROM assessment
        WHERE {which} AND state = 'queued' AND (not_before IS NULL OR not_before <= now()) AND crashes < :suspect
        ORDER BY id FOR UPDATE
    )
    RETURNING id, attempt, uri, policy_revision_id, charged, crashes, claimed_at, lease_until, submission_id, reuse
"""
_CLAIM_THESE = text(_CLAIM.format(which="id = ANY(:ids)"))
_CLAIM_SIBLINGS = text(_CLAIM.format(which="submission_id = ANY(:submission_ids)"))

_DEFER = text("""
    UPDATE assessment SET ring_at = now() + make_interval(secs => :delay_s), rung_at = NULL
    WHERE id = ANY(:ids) AND state = 'queued' AND crashes >= :suspect
""")
_NO_SUSPECT = 2**31 - 1  # more crashes than a row can have

_BEAT = text("""
    UPDATE assessment AS a SET lease_until = now() + make_interval(secs => :lease_s)
    FROM unnest(CAST(:ids AS uuid[]), CAST(:attempts AS integer[])) AS held (id, attempt)
    WHERE a.id = held.id AND a.attempt = held.attempt AND a.state = 'running'
    RETURNING a.id
""")


def claim(
    engine: Engine, ids: Sequence[UUID], *, worker: str, lease_s: float, suspect: int = _NO_SUSPECT
) -> list[Claim]:
    """Claim what is due of these rows; the others are running, ended, not due, or unknown, and are left out.

    suspect: rows that were in hand at so many deaths are left out too.
    With a row come those of its siblings that are due: the same image under other policies.
    The attempt is charged here, before any work: a crash cannot forget it.
    """
    by = {"worker": worker, "lease_s": lease_s, "suspect": suspect}
    claims = _claims(engine, _CLAIM_THESE, by | {"ids": list(ids)})
    if together := {c.submission_id for c in claims if c.submission_id}:
        with suppress(LedgerUnavailable):  # what is claimed by then is worked on; the siblings ring again
            claims += _claims(engine, _CLAIM_SIBLINGS, by | {"submission_ids": list(together)})
    return claims


def defer_suspects(engine: Engine, ids: Sequence[UUID], *, suspect: int, delay_s: float) -> bool:
    """Ring those of these rows that are suspects again after delay_s seconds; whether there were any."""
    values = {"ids": list(ids), "suspect": suspect, "delay_s": delay_s}
    with reaching_postgres(), engine.connect() as connection:
        return connection.execute(_DEFER, values).rowcount > 0


def _claims(engine: Engine, statement: TextClause, values: dict[str, Any]) -> list[Claim]:
    with reaching_postgres(), engine.connect() as connection:
        return [Claim(**row._mapping) for row in connection.execute(statement, values)]


def beat(engine: Engine, held: Iterable[Claim], *, lease_s: float) -> set[UUID]:
    """Renew the leases of everything in hand in one statement and return the ids whose lease was lost."""
    claims = list(held)
    if not claims:
        return set()
    values = {"ids": [c.id for c in claims], "attempts": [c.attempt for c in claims], "lease_s": lease_s}
    with reaching_postgres(), engine.connect() as connection:
        kept = set(connection.execute(_BEAT, values).scalars())
    return {c.id for c in claims} - kept

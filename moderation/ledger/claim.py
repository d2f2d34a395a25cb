"""Claim: the right to work on a row, under a lease that is renewed and a fence that only grows."""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any
from uuid import UUID

from sqlalchemy import Engine, TextClause, text

from moderation.assessment import Claim
from moderation.errors import LedgerUnavailable
from moderation.ledger.engine import autocommit
from moderation.ledger.pauses import IS_PAUSED

# It waits for a lock rather than skip the row: the sweeper still holds it when a fast worker answers the ring, and a
# skipped row's message would be gone.
_CLAIM = """
    UPDATE assessment SET
        state = 'running', attempt = attempt + 1, charged = charged + 1, worker = :worker,
        claimed_at = now(), lease_until = now() + make_interval(secs => :lease_s),
        not_before = NULL, ring_at = NULL, rung_at = NULL
    WHERE id IN (
        SELECT a.id FROM assessment a
        WHERE a.{which} AND a.state = 'queued' AND (a.not_before IS NULL OR a.not_before <= now())
            AND (a.expires_at IS NULL OR a.expires_at > now())
            AND a.crashes < :suspect AND NOT {paused}
        ORDER BY a.id FOR UPDATE
    )
    RETURNING id, attempt, uri, policy_revision_id, charged, crashes, claimed_at, lease_until, submission_id, reuse
"""
_CLAIM_THESE = text(_CLAIM.format(which="id = ANY(:ids)", paused=IS_PAUSED))
_CLAIM_SIBLINGS = text(_CLAIM.format(which="submission_id = ANY(:submission_ids)", paused=IS_PAUSED))

_DEFER = text("""
    UPDATE assessment SET ring_at = now() + make_interval(secs => :delay_s), rung_at = NULL
    WHERE id = ANY(:ids) AND state = 'queued' AND crashes >= :suspect
""")
_NO_SUSPECT = 2**31 - 1  # more crashes than a row can have

# Locked in order, as everything that writes several rows and waits for them: else two could wait for each other.
_BEAT = text("""
    WITH held AS (
        SELECT a.id FROM unnest(CAST(:ids AS uuid[]), CAST(:attempts AS integer[])) AS named (id, attempt)
        JOIN assessment a ON a.id = named.id AND a.attempt = named.attempt AND a.state = 'running'
        ORDER BY a.id FOR UPDATE OF a
    )
    UPDATE assessment AS a SET lease_until = now() + make_interval(secs => :lease_s)
    FROM held WHERE a.id = held.id
    RETURNING a.id
""")


def claim(
    engine: Engine, ids: Sequence[UUID], *, worker: str, lease_s: float, suspect: int = _NO_SUSPECT
) -> list[Claim]:
    """Claim what is due of these rows; the others are running, ended, paused, not due, or unknown, and are left out.

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
    with autocommit(engine) as connection:
        return connection.execute(_DEFER, values).rowcount > 0


def _claims(engine: Engine, statement: TextClause, values: dict[str, Any]) -> list[Claim]:
    with autocommit(engine) as connection:
        return [Claim(**row._mapping) for row in connection.execute(statement, values)]


def beat(engine: Engine, held: Iterable[Claim], *, lease_s: float) -> set[UUID]:
    """Renew the leases of everything in hand in one statement and return the ids whose lease was lost."""
    claims = list(held)
    if not claims:
        return set()
    values = {"ids": [c.id for c in claims], "attempts": [c.attempt for c in claims], "lease_s": lease_s}
    with autocommit(engine) as connection:
        kept = set(connection.execute(_BEAT, values).scalars())
    return {c.id for c in claims} - kept

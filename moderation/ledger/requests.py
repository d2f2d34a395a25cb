"""Idempotent requests: what came with an Idempotency-Key, and what was answered once that is known.

A row is committed before the submission that it stands for, and hands out the seed of its ids. So a repeat submits
the same rows, at once or after a crash between the two, and changes nothing.
"""

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import Engine, text
from uuid_utils.compat import uuid7

from moderation.ledger.engine import autocommit

KEPT_DAYS = 7  # clients repeat within minutes; a queue of theirs may stand over a weekend

# An old row goes with each new one, so the table needs nobody to tidy it.
_BEGIN = text(f"""
    WITH old AS (
        DELETE FROM request WHERE (owner, key) IN (
            SELECT owner, key FROM request WHERE begun_at < now() - interval '{KEPT_DAYS} days'
            ORDER BY begun_at LIMIT 2 FOR UPDATE SKIP LOCKED
        ) AND (owner, key) <> (:owner, :key)
    )
    INSERT INTO request AS r (owner, key, body_sha256, seed) VALUES (:owner, :key, :body, :seed)
    ON CONFLICT (owner, key) DO UPDATE SET owner = r.owner
    RETURNING body_sha256, seed, answer
""")
_FINISH = text("""
    UPDATE request SET answer = coalesce(answer, :answer) WHERE owner = :owner AND key = :key RETURNING answer
""")
_FORGET = text("DELETE FROM request WHERE owner = :owner AND key = :key AND answer IS NULL")


@dataclass(frozen=True, slots=True)
class IdempotentRequest:
    """same: whether the key came with this body before, or never. seed: of the ids. answer: None until there is one."""

    same: bool
    seed: UUID
    answer: str | None


def begin(engine: Engine, owner: str, key: str, body_sha256: str) -> IdempotentRequest:
    """Note the request, or find what was noted when the key came first. Safe to repeat."""
    values = {"owner": owner, "key": key, "body": body_sha256, "seed": uuid7()}
    with autocommit(engine) as connection:
        row = connection.execute(_BEGIN, values).one()
    return IdempotentRequest(row.body_sha256 == body_sha256, row.seed, row.answer)


def finish(engine: Engine, owner: str, key: str, answer: str) -> str:
    """Keep the answer, and return it; or the one that a repeat at the same time kept before."""
    with autocommit(engine) as connection:
        kept = connection.execute(_FINISH, {"owner": owner, "key": key, "answer": answer}).scalar()
    return answer if kept is None else str(kept)


def forget(engine: Engine, owner: str, key: str) -> None:
    """The request was refused: its key may come again."""
    with autocommit(engine) as connection:
        connection.execute(_FORGET, {"owner": owner, "key": key})

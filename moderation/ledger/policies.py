"""Pins and loads policy revisions. A revision is added and never changes."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, text

from moderation.errors import PolicyError, PolicyNotLive, UnknownPolicy
from moderation.ledger.engine import autocommit, transaction
from moderation.policy import PolicyRevision, builtin_policies, parse_ref


@dataclass(frozen=True, slots=True)
class PinnedPolicy:
    """A revision as assessments cite it."""

    id: int
    policy: str
    revision: int

    @property
    def ref(self) -> str:
        return f"{self.policy}@{self.revision}"


_ADD = text("""
    INSERT INTO policy_revision (policy, revision, title, document, prompt, prompt_sha256, created_by, reason)
    VALUES (:policy, :revision, :title, CAST(:document AS jsonb), :prompt, :prompt_sha256, :created_by, :reason)
    ON CONFLICT (policy, revision) DO NOTHING
    RETURNING id
""")

_CURRENT = text("""
    SELECT policy_revision_id AS id, policy, revision FROM policy_live WHERE policy = ANY(:policies)
""")

_EXACT = text("""
    SELECT r.id, r.policy, r.revision FROM policy_revision r
    JOIN unnest(CAST(:policies AS text[]), CAST(:revisions AS integer[])) AS wanted (policy, revision)
        ON (r.policy, r.revision) = (wanted.policy, wanted.revision)
    WHERE r.retired_at IS NULL
        AND (:unreleased OR EXISTS (SELECT FROM policy_usable u WHERE u.policy_revision_id = r.id))
""")

_LOAD = text("SELECT document, prompt_sha256 FROM policy_revision WHERE id = :id")

_KNOWN = text("""
    SELECT EXISTS (
        SELECT FROM policy_revision
        WHERE policy = :policy AND (CAST(:revision AS integer) IS NULL OR revision = :revision)
    )
""")

_RETIRED = text("""
    SELECT max(retired_at) FROM policy_revision
    WHERE policy = :policy AND (CAST(:revision AS integer) IS NULL OR revision = :revision)
""")


def add_revision(connection: Connection, policy: PolicyRevision, *, by: str, reason: str) -> bool:
    """Write a revision that is new; False where exactly this id@revision stands already."""
    row = connection.execute(
        _ADD,
        {
            "policy": policy.policy,
            "revision": policy.revision,
            "title": policy.title,
            "document": policy.model_dump_json(),
            "prompt": policy.prompt,
            "prompt_sha256": policy.prompt_sha256,
            "created_by": by,
            "reason": reason,
        },
    ).first()
    return row is not None


def seed_builtin(engine: Engine) -> int:
    """Add the built-in policies that are missing and say how many were. Safe to repeat."""
    with transaction(engine) as connection:
        return sum(
            add_revision(connection, policy, by="vetline", reason="built in") for policy in builtin_policies()
        )


def pin(engine: Engine, refs: Iterable[str], *, unreleased: bool = False) -> dict[str, PinnedPolicy]:
    """Each ref ("id" or "id@revision") with the revision that it means now. Raises UnknownPolicy, PolicyNotLive.

    unreleased: whether a named revision may be one that its policy's gate has not let through, as for an evaluation.
    """
    wanted = {ref: parse_ref(ref) for ref in set(refs)}
    current = [policy for policy, revision in wanted.values() if revision is None]
    exact = [(policy, revision) for policy, revision in wanted.values() if revision is not None]
    pinned: dict[tuple[str, int | None], PinnedPolicy] = {}
    with autocommit(engine) as connection:
        if current:
            for row in connection.execute(_CURRENT, {"policies": current}):
                pinned[(row.policy, None)] = PinnedPolicy(row.id, row.policy, row.revision)
        if exact:
            names, revisions = [list(column) for column in zip(*exact, strict=True)]
            values = {"policies": names, "revisions": revisions, "unreleased": unreleased}
            for row in connection.execute(_EXACT, values):
                pinned[(row.policy, row.revision)] = PinnedPolicy(row.id, row.policy, row.revision)
        for ref, key in wanted.items():
            if key not in pinned:
                raise _not_to_be_had(connection, ref, *key)
    return {ref: pinned[key] for ref, key in wanted.items()}


def load_revision(engine: Engine, revision_id: int) -> PolicyRevision:
    """The whole policy behind an assessment's policy_revision_id.

    Raises PolicyError where this release would render it otherwise than when it was added.
    """
    with autocommit(engine) as connection:
        row = connection.execute(_LOAD, {"id": revision_id}).one()
    return policy_of(row.document, row.prompt_sha256)


def policy_of(document: dict[str, Any], prompt_sha256: str) -> PolicyRevision:
    """The policy that was stored as `document`. Raises PolicyError where it renders to another text than then."""
    policy = PolicyRevision.model_validate(document)
    if policy.prompt_sha256 != prompt_sha256:
        raise PolicyError(f"{policy.ref} no longer renders to the text that it was added with")
    return policy


def _not_to_be_had(connection: Connection, ref: str, policy: str, revision: int | None) -> UnknownPolicy:
    retired = connection.execute(_RETIRED, {"policy": policy, "revision": revision}).scalar()
    if retired is None and connection.execute(_KNOWN, {"policy": policy, "revision": revision}).scalar():
        why = "its policy has a gate: `vetline policy activate` lets a revision through that passes"
        return PolicyNotLive(f"{ref} is not live; {why}")
    if retired is None:
        return UnknownPolicy(f"no policy {ref!r}; `vetline policy list` shows what there is")
    return UnknownPolicy(f"{ref} takes no new images: it was retired on {retired:%Y-%m-%d}")

"""The policy registry for people: list, find, add, retire. `policies` pins and loads for the path of an image."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine, text

from moderation.errors import PolicyError, UnknownPolicy
from moderation.ledger.engine import autocommit, transaction
from moderation.ledger.policies import add_revision, policy_of
from moderation.policy import PolicyRevision, check_size, parse_ref

_ONE_AT_A_TIME = 7_265_003  # advisory lock: two people who add at once get two numbers
_LOCK_REGISTRY = text("SELECT pg_advisory_xact_lock(:lock)")

_ENTRIES = text("""
    SELECT id, policy, revision, title, document, prompt_sha256, created_at, created_by, reason, retired_at,
           s.current, s.gated, s.released, s.shadowed, s.evaluated
    FROM policy_revision r JOIN policy_state s ON s.policy_revision_id = r.id
    WHERE CAST(:policy AS text) IS NULL OR policy = :policy
    ORDER BY policy, revision
""")

_RETIRE = text("""
    UPDATE policy_revision SET retired_at = now()
    WHERE policy = :policy AND (CAST(:revision AS integer) IS NULL OR revision = :revision) AND retired_at IS NULL
    RETURNING policy || '@' || revision
""")


@dataclass(frozen=True, slots=True)
class RegistryEntry:
    """A revision as the registry holds it: who added it, when and why.

    current: whether the policy's bare id means this revision. gated: whether its policy has a gate; released: whether
    it went live through it; shadowed, evaluated: whether it is judged in shadow, and has a run.
    """

    id: int
    policy: str
    revision: int
    title: str
    document: dict[str, Any]
    prompt_sha256: str
    created_at: datetime
    created_by: str
    reason: str
    retired_at: datetime | None
    current: bool
    gated: bool
    released: bool
    shadowed: bool
    evaluated: bool

    @property
    def state(self) -> str:
        """live, shadow, evaluated or draft where the policy has a gate; current or older where it has none; or retired.

        earlier: a revision behind a gate that was live before.
        """
        if self.retired_at is not None:
            return "retired"
        if self.current:
            return "live" if self.gated else "current"
        if self.shadowed:
            return "shadow"
        if not self.gated:
            return "older"
        return "earlier" if self.released else "evaluated" if self.evaluated else "draft"

    @property
    def ref(self) -> str:
        return f"{self.policy}@{self.revision}"

    @property
    def content(self) -> PolicyRevision:
        """The policy itself. Raises PolicyError where this release would render it otherwise than when it was added."""
        return policy_of(self.document, self.prompt_sha256)


@dataclass(frozen=True, slots=True)
class AddResult:
    """What `add` came to: the revision that stands for the policy now, and whether it is new."""

    policy: PolicyRevision
    new: bool


def entries(engine: Engine, policy: str | None = None) -> list[RegistryEntry]:
    """Every revision, of one policy or of all, by id and number."""
    with autocommit(engine) as connection:
        return _entries(connection, policy)


def find(engine: Engine, ref: str) -> RegistryEntry:
    """The revision behind "id@3", retired or not; behind "id", the current one, or the newest where all are retired.

    Raises UnknownPolicy.
    """
    policy, revision = parse_ref(ref)
    revisions = entries(engine, policy)
    if revision is not None:
        revisions = [entry for entry in revisions if entry.revision == revision]
    if not revisions:
        raise UnknownPolicy(f"no policy {ref!r}; `vetline policy list` shows what there is")
    return next((entry for entry in revisions if entry.current), revisions[-1])


def add(engine: Engine, policy: PolicyRevision, *, by: str, reason: str = "") -> AddResult:
    """Add a revision. One that names no number gets the next, unless the current revision says the same.

    by, reason: who and why, kept with it; a reason is required behind the first revision.
    Raises PolicyError for a number that is taken or past, a text that is too long, or a missing reason.
    """
    with transaction(engine) as connection:
        connection.execute(_LOCK_REGISTRY, {"lock": _ONE_AT_A_TIME})
        existing = _entries(connection, policy.policy)
        if same := _same(policy, existing):
            return AddResult(same.content, new=False)
        numbered = policy.at_revision(_number(policy, existing))
        check_size(numbered)
        if numbered.revision > 1 and not reason:
            raise PolicyError(f"{numbered.ref} changes a policy: say why, with --reason")
        add_revision(connection, numbered, by=by, reason=reason or "first revision")
        return AddResult(numbered, new=True)


def retire(engine: Engine, ref: str) -> list[str]:
    """Take no new images under a revision, or under a whole policy; which were retired now, as id@revision.

    Raises UnknownPolicy.
    """
    find(engine, ref)
    policy, revision = parse_ref(ref)
    with autocommit(engine) as connection:
        return sorted(connection.execute(_RETIRE, {"policy": policy, "revision": revision}).scalars())


def _entries(connection: Connection, policy: str | None) -> list[RegistryEntry]:
    return [RegistryEntry(**row._mapping) for row in connection.execute(_ENTRIES, {"policy": policy})]


def _names_number(policy: PolicyRevision) -> bool:
    return "revision" in policy.model_fields_set


def _same(policy: PolicyRevision, existing: list[RegistryEntry]) -> RegistryEntry | None:
    """The entry that says what this policy says, under its number or, where it has none, as the current one."""
    for entry in existing:
        is_the_one = entry.revision == policy.revision if _names_number(policy) else entry.current
        if is_the_one and entry.content.at_revision(1) == policy.at_revision(1):
            return entry
    return None


def _number(policy: PolicyRevision, existing: list[RegistryEntry]) -> int:
    newest = max((entry.revision for entry in existing), default=0)
    if not _names_number(policy):
        return newest + 1
    if policy.revision > newest:
        return policy.revision
    is_taken = any(entry.revision == policy.revision for entry in existing)
    problem = "stands with other content, and a revision never changes" if is_taken else "is past"
    raise PolicyError(
        f"{policy.ref} {problem}; the next free revision is {newest + 1}: name that, or leave `revision` out"
    )

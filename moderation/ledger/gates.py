"""Gates and releases: what a revision must pass, whether it does, and what went live by whom.

The gate is judged in Postgres (vetline_gate_check), and what it refuses no role can insert: the commands ask first only
in order to say it well.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic_core import to_json
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from moderation.errors import GateRefused
from moderation.gate import Gate
from moderation.ledger.engine import autocommit, transaction
from moderation.ledger.registry import RegistryEntry

_REFUSALS = (
    "23001",
    "42501",
)  # restrict_violation by our triggers, insufficient_privilege by them or by a grant

_LATEST = text("""
    SELECT id, policy, data_sha256, weights_sha256, template_mode, rules, reason, set_by, login, set_at
    FROM policy_gate WHERE policy = :policy ORDER BY id DESC LIMIT 1
""")
# What stood before a gate was set went live when it was added: so it stays usable, and the current one current.
_BEFORE_GATE = text("""
    INSERT INTO policy_release (policy_revision_id, kind, released_by)
    SELECT id, 'before_gate', :by FROM policy_revision r
    WHERE policy = :policy AND retired_at IS NULL AND NOT EXISTS (SELECT FROM policy_gate g WHERE g.policy = r.policy)
    ORDER BY revision
""")
_SET = text("""
    INSERT INTO policy_gate (policy, data_sha256, weights_sha256, template_mode, rules, reason, set_by)
    VALUES (:policy, :data, :weights, :mode, CAST(:rules AS jsonb), :reason, :by)
""")
_CHECK = text("SELECT rule, passed, says FROM vetline_gate_check(:revision, :run, :kind)")
_NEWEST_RUN = text("""
    SELECT e.id FROM evaluation_run e WHERE e.policy_revision_id = :revision
    ORDER BY e.data_sha256 = :data DESC, e.seq DESC LIMIT 1
""")
_RELEASE = text("""
    INSERT INTO policy_release (policy_revision_id, kind, run_id, override_reason, released_by)
    VALUES (:revision, :kind, :run, :override, :by)
""")
_RELEASES = text("""
    SELECT l.id, r.policy, r.revision, l.kind, l.run_id, l.weights_sha256, l.template_mode, l.override_reason,
           l.released_by, l.login, l.released_at
    FROM policy_release l JOIN policy_revision r ON r.id = l.policy_revision_id
    WHERE CAST(:policy AS text) IS NULL OR r.policy = :policy ORDER BY l.id DESC
""")


@dataclass(frozen=True, slots=True)
class StandingGate:
    """The gate that counts for a policy. login: whose session set it."""

    id: int
    policy: str
    data_sha256: str
    weights_sha256: str | None
    template_mode: str | None
    rules: list[dict[str, Any]]
    reason: str
    set_by: str
    login: str
    set_at: datetime


@dataclass(frozen=True, slots=True)
class RuleResult:
    """One rule of a gate, and what the run has."""

    rule: str
    passed: bool
    says: str


@dataclass(frozen=True, slots=True)
class Release:
    """What went live. kind: before_gate, policy or model. override_reason: why past the gate; None through it."""

    id: int
    policy: str
    revision: int
    kind: str
    run_id: UUID | None
    weights_sha256: str | None
    template_mode: str | None
    override_reason: str | None
    released_by: str
    login: str
    released_at: datetime


def gate_of(engine: Engine, policy: str) -> StandingGate | None:
    """The gate that counts; None where the policy has none."""
    with autocommit(engine) as connection:
        row = connection.execute(_LATEST, {"policy": policy}).one_or_none()
    return StandingGate(*row) if row else None


def set_gate(engine: Engine, gate: Gate, *, by: str, reason: str) -> None:
    """Set or replace a policy's gate. Raises GateRefused where this login may not replace the one that stands."""
    values = {
        "policy": gate.policy,
        "data": gate.data,
        "weights": gate.weights,
        "mode": gate.prompt_mode,
        "rules": to_json([rule.model_dump() for rule in gate.rules]).decode(),
        "reason": reason,
        "by": by,
    }
    with _refusals(), transaction(engine) as connection:
        if gate_of(engine, gate.policy) is None:
            connection.execute(_BEFORE_GATE, {"policy": gate.policy, "by": by})
        connection.execute(_SET, values)


def newest_run(engine: Engine, entry: RegistryEntry, gate: StandingGate) -> UUID | None:
    """The newest run of a revision, on the gate's data where there is one."""
    with autocommit(engine) as connection:
        found: UUID | None = connection.execute(
            _NEWEST_RUN, {"revision": entry.id, "data": gate.data_sha256}
        ).scalar()
    return found


def check_gate(
    engine: Engine, entry: RegistryEntry, run: UUID | None, *, kind: str = "policy"
) -> list[RuleResult]:
    """Each rule with its result. kind: policy, or model where weights go live under a revision that is."""
    with autocommit(engine) as connection:
        rows = connection.execute(_CHECK, {"revision": entry.id, "run": run, "kind": kind})
        return [RuleResult(row.rule, bool(row.passed), row.says) for row in rows]


def release(
    engine: Engine,
    entry: RegistryEntry,
    run: UUID | None,
    *,
    by: str,
    kind: str = "policy",
    override: str | None = None,
) -> None:
    """Let a revision go live, or a model under it. override: why past the gate. Raises GateRefused."""
    values = {"revision": entry.id, "kind": kind, "run": run, "override": override, "by": by}
    with _refusals(), autocommit(engine) as connection:
        connection.execute(_RELEASE, values)


def releases(engine: Engine, policy: str | None = None) -> list[Release]:
    """What went live, the newest first."""
    with autocommit(engine) as connection:
        return [Release(*row) for row in connection.execute(_RELEASES, {"policy": policy})]


@contextmanager
def _refusals() -> Iterator[None]:
    """What Postgres refuses, in its words."""
    try:
        yield
    except DBAPIError as exc:
        if getattr(exc.orig, "sqlstate", None) not in _REFUSALS:
            raise
        raise GateRefused(str(exc.orig).splitlines()[0]) from exc

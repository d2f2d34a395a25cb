"""Who may do what: a group role for each kind of process, and what is granted to it.

    vetline_migrate   migrations, where the first of them ran as it; and what people do (policies, pause, retry, retention)
    vetline_producer  submits, and reads how what was submitted stands
    vetline_worker    claims, records, sweeps, relays, sends webhooks; changes no verdict, adds no policy
    vetline_consumer  reads the feed and the views, keeps its place; sees no URI that may hold a secret, no raw output
    vetline_watcher   reads all but secrets and changes nothing: Flower, `vetline metrics`, status, failed, explain
    vetline_scaler    reads two numbers
    vetline_approver  lets a policy or model go past its gate, and replaces gates; never whoever may add policies

None can log in. Make a login of each and put it into its group: docs/operations.md has the commands.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, Engine, text

from moderation.ledger.engine import autocommit

Grants = Mapping[str, str]

OWNER = "vetline_migrate"
_VIEWS = ("verdict_history", "verdict_current", "failure_current", "unassessed", "feed")
_POLICY_VIEWS = ("policy_live", "policy_usable", "policy_state")
# Every table, so that a new one is granted or left out on purpose; a test holds it against the database.
_READABLE = (
    "alembic_version", "assessment", "attempt", "audit_place", "cap", "consumer", "evaluation_item", "evaluation_run",
    "feed_epoch", "golden_item", "golden_rate", "legal_hold", "pause", "policy_gate", "policy_release", "policy_revision",
    "shadow", "sweep", "tally", "tally_change", "verdict", "webhook", "webhook_set_aside", "worker",
)  # fmt: skip
HIDDEN = ("webhook_secret", "request", "rejected_message")  # what signs, and what services asked or sent

_READ, _KEEP = "SELECT", "SELECT, INSERT, UPDATE, DELETE"

GRANTS: Mapping[str, Grants] = {
    "vetline_producer": {
        "alembic_version": _READ,
        "policy_revision": _READ,
        **dict.fromkeys(_POLICY_VIEWS, _READ),
        "assessment": "SELECT, INSERT",
        "verdict": _READ,
        "pause": _READ,
        "cap": _READ,
        "tally": _READ,
        "tally_change": "SELECT, INSERT",  # by the trigger that counts
        "request": _KEEP,
    },
    "vetline_worker": {
        "alembic_version": _READ,
        "policy_revision": _READ,
        **dict.fromkeys(_POLICY_VIEWS, _READ),
        "assessment": "SELECT, INSERT, UPDATE",  # INSERT: a plain Celery message submits
        "attempt": "SELECT, INSERT",
        "verdict": "SELECT, INSERT",
        "sweep": "SELECT, INSERT, UPDATE",
        "worker": _KEEP,
        "pause": _READ,
        "cap": _READ,
        "tally": _KEEP,
        "tally_change": "SELECT, INSERT, DELETE",
        "feed": _READ,
        "feed_epoch": _READ,
        "webhook": "SELECT, UPDATE",
        # The audit verifies what was given out. It moves no place.
        "consumer": "SELECT, UPDATE (verified_epoch, verified_xid, verified_seq, verified_given)",
        "webhook_secret": _READ,
        "webhook_set_aside": _KEEP,
        "audit_place": "SELECT, UPDATE",
        "rejected_message": "SELECT, INSERT, UPDATE",
    },
    "vetline_consumer": {
        **dict.fromkeys((*_VIEWS, "feed_epoch", "alembic_version"), _READ),
        "verdict": "SELECT (epoch, xid, seq, recorded_at)",
        "consumer": _KEEP,
    },
    "vetline_watcher": {
        **dict.fromkeys((*_READABLE, *_VIEWS, *_POLICY_VIEWS, "open_work"), _READ),
        # All but `uri`, which is as the client sent it.
        "rejected_message": "SELECT (id, sha256, code, detail, queue, bytes, body, task_id, task, policy, priority,"
        " not_before, expires_at, times, rejected_at, last_at, worker, resubmitted_at, assessment_id)",
    },
    "vetline_scaler": {"open_work": _READ},
    "vetline_approver": {
        **dict.fromkeys(
            (
                "alembic_version",
                "policy_revision",
                "evaluation_run",
                "evaluation_item",
                "shadow",
                *_POLICY_VIEWS,
            ),
            _READ,
        ),
        "policy_gate": "SELECT, INSERT",
        "policy_release": "SELECT, INSERT",
    },
}
ROLES = (OWNER, *GRANTS)
ADVICE = "a role that may make roles runs `CREATE ROLE {} NOLOGIN`, then `vetline db upgrade`"

_MISSING = text("SELECT name FROM unnest(CAST(:names AS text[])) AS name WHERE to_regrole(name) IS NULL")
_SCHEMA = text("SELECT quote_ident(current_schema())")
_MAY_GRANT = text("""
    SELECT bool_and(pg_has_role(current_user, c.relowner, 'USAGE')) FROM pg_class c
    WHERE c.relnamespace = current_schema()::regnamespace AND c.relname = ANY(:names)
""")
_WITHOUT = text("""
    SELECT role FROM unnest(CAST(:names AS text[])) AS role
    WHERE to_regrole(role) IS NOT NULL AND NOT has_table_privilege(role, 'open_work', 'SELECT')
        AND NOT has_table_privilege(role, 'alembic_version', 'SELECT')
""")


@dataclass(frozen=True, slots=True)
class RolesStatus:
    """missing: roles that are not there. bare: roles that were granted nothing here."""

    missing: tuple[str, ...]
    bare: tuple[str, ...]


def grant(connection: Connection) -> bool:
    """Give each role that is there what it needs and nothing else; whether all got theirs. Safe to repeat.

    Grants nothing where the tables belong to somebody whom this user may not act for.
    """
    missing = set(connection.execute(_MISSING, {"names": list(ROLES)}).scalars())
    if not connection.execute(_MAY_GRANT, {"names": [*_READABLE, *HIDDEN]}).scalar():
        return False
    for statement in _statements(missing, str(connection.execute(_SCHEMA).scalar_one())):
        connection.execute(text(statement))
    return not missing


def roles_status(engine: Engine) -> RolesStatus:
    """Which roles are missing, and which were granted nothing."""
    with autocommit(engine) as connection:
        missing = connection.execute(_MISSING, {"names": list(ROLES)}).scalars()
        bare = connection.execute(_WITHOUT, {"names": list(ROLES)}).scalars()
        return RolesStatus(tuple(missing), tuple(bare))


def _statements(missing: set[str], schema: str) -> list[str]:
    tables = ", ".join((*_READABLE, *HIDDEN, *_VIEWS, *_POLICY_VIEWS, "open_work"))
    statements = []
    for role, grants in GRANTS.items():
        if role in missing:
            continue
        statements += [f"GRANT USAGE ON SCHEMA {schema} TO {role}", f"REVOKE ALL ON {tables} FROM {role}"]
        statements += [f"GRANT {verbs} ON {table} TO {role}" for table, verbs in grants.items()]
    if OWNER not in missing:
        statements += [
            f"GRANT USAGE, CREATE ON SCHEMA {schema} TO {OWNER}",
            f"GRANT {_KEEP} ON {tables} TO {OWNER}",
        ]
    return statements

"""The tables, as SQLModel classes. Times carry their zone; constraints carry their names.

`attempt` and `verdict` are append-only, but that retention clears raw outputs, once. SQLModel tables do not validate:
only checked values are written to them.
"""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.dialects.postgresql.base import ischema_names
from sqlalchemy.types import UserDefinedType
from sqlmodel import Field, SQLModel

NOW = text("now()")

# A lane: what is of one tenant, batch and policy. Each is found in one step, however long the others are.
LANE = (
    "hashtextextended((((COALESCE(tenant, ''::text) || ' '::text) || COALESCE(batch, ''::text)) || ' '::text)"
    " || policy, 0)"
)


class Xid8(UserDefinedType[str]):
    """Postgres' 64-bit transaction id: the order of commits that a feed can stand on."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        return "xid8"


ischema_names["xid8"] = Xid8  # so that reading a database's tables knows it too


def _time(*, default: bool = False, nullable: bool = True) -> Any:
    return Column(DateTime(timezone=True), nullable=nullable, server_default=NOW if default else None)


def _json() -> Any:
    return Column(JSONB, nullable=True)


def _text(*, nullable: bool = False) -> Any:
    return Column(Text, nullable=nullable)


class PolicyRevisionRow(SQLModel, table=True):
    """A policy revision. `document` is the whole policy; `prompt` its rendered text. Never changed, only retired."""

    __tablename__ = "policy_revision"
    __table_args__ = (
        PrimaryKeyConstraint("id", name="policy_revision_pk"),
        UniqueConstraint("policy", "revision", name="policy_revision_once"),
    )

    id: int = Field(sa_column=Column(Integer, Identity(always=True)))
    policy: str = Field(sa_column=_text())
    revision: int
    title: str = Field(sa_column=_text())
    document: dict[str, Any] = Field(sa_column=Column(JSONB, nullable=False))
    prompt: str = Field(sa_column=_text())
    prompt_sha256: str = Field(sa_column=_text())
    created_at: datetime = Field(sa_column=_time(default=True, nullable=False))
    created_by: str = Field(sa_column=_text())
    reason: str = Field(sa_column=_text())
    retired_at: datetime | None = Field(default=None, sa_column=_time())


class AssessmentRow(SQLModel, table=True):
    """One image under one policy revision.

    attempt: the fence, grows with each claim. charged: attempts that count against the limit.
    crashes: deaths of a worker or runtime with this item in hand. not_before: no claim earlier. expires_at: none later;
    a row that is queued then is cancelled with the code `expired`.
    While it is queued, either ring_at: when it is to be rung; or rung_at: when it was, by a message not answered yet.
    submission_id: the same for the assessments of one image that were submitted under several policies.
    reassesses: the assessment whose image this one judges again, under another revision of its policy.
    reuse: whether a verdict about the same pixels may answer for this one.
    cleared_at: when retention took its URI away; it cannot be fetched any more.
    tenant: on whose behalf it was submitted, where producers tell them apart.
    """

    __tablename__ = "assessment"
    __table_args__ = (
        PrimaryKeyConstraint("id", name="assessment_pk"),
        ForeignKeyConstraint(
            ["policy_revision_id"], ["policy_revision.id"], name="assessment_policy_revision_fk"
        ),
        ForeignKeyConstraint(["reassesses"], ["assessment.id"], name="assessment_reassesses_fk"),
        UniqueConstraint("policy", "key", name="assessment_key_once"),
        CheckConstraint(
            "state IN ('queued', 'running', 'done', 'failed', 'cancelled')", name="assessment_state_known"
        ),
        CheckConstraint(
            "(state = 'running') = (lease_until IS NOT NULL)", name="assessment_lease_while_running"
        ),
        CheckConstraint(
            "(state = 'queued') = (ring_at IS NOT NULL OR rung_at IS NOT NULL)",
            name="assessment_rings_while_queued",
        ),
        CheckConstraint("ring_at IS NULL OR rung_at IS NULL", name="assessment_due_or_rung"),
        # The previous release rings by the first, this one by the second; the first can go with the next release.
        Index("assessment_due", "priority", "ring_at", postgresql_where=text("ring_at IS NOT NULL")),
        Index(
            "assessment_lanes",
            "priority",
            text(LANE),
            "ring_at",
            postgresql_where=text("ring_at IS NOT NULL"),
        ),
        Index("assessment_rung", "rung_at", postgresql_where=text("rung_at IS NOT NULL")),
        Index("assessment_leases", "lease_until", postgresql_where=text("state = 'running'")),
        Index("assessment_failures", "error_code", postgresql_where=text("state = 'failed'")),
        Index("assessment_batch", "batch", "state", postgresql_where=text("batch IS NOT NULL")),
        # Only the claim asks for it, and only for what is queued.
        Index(
            "assessment_submission",
            "submission_id",
            postgresql_where=text("submission_id IS NOT NULL AND state = 'queued'"),
        ),
        Index(
            "assessment_expires",
            "expires_at",
            postgresql_where=text("expires_at IS NOT NULL AND state = 'queued'"),
        ),
        Index("assessment_reassesses", "reassesses", postgresql_where=text("reassesses IS NOT NULL")),
        # Every row is updated three times in its life: room in the page keeps it in place.
        {"postgresql_with": {"fillfactor": 70}},
    )

    id: UUID = Field(sa_column=Column(Uuid))
    uri: str = Field(sa_column=_text())
    policy: str = Field(sa_column=_text())
    policy_revision_id: int
    key: str | None = Field(default=None, sa_column=_text(nullable=True))
    batch: str | None = Field(default=None, sa_column=_text(nullable=True))
    priority: int = Field(sa_column=Column(SmallInteger, nullable=False))
    meta: dict[str, Any] | None = Field(default=None, sa_column=Column("metadata", JSONB, nullable=True))
    state: str = Field(sa_column=Column(Text, nullable=False, server_default="queued"))
    attempt: int = Field(sa_column=Column(Integer, nullable=False, server_default="0"))
    charged: int = Field(sa_column=Column(Integer, nullable=False, server_default="0"))
    crashes: int = Field(sa_column=Column(Integer, nullable=False, server_default="0"))
    worker: str | None = Field(default=None, sa_column=_text(nullable=True))
    claimed_at: datetime | None = Field(default=None, sa_column=_time())
    lease_until: datetime | None = Field(default=None, sa_column=_time())
    not_before: datetime | None = Field(default=None, sa_column=_time())
    ring_at: datetime | None = Field(default=None, sa_column=_time())
    rung_at: datetime | None = Field(default=None, sa_column=_time())
    error_code: str | None = Field(default=None, sa_column=_text(nullable=True))
    error_detail: str | None = Field(default=None, sa_column=_text(nullable=True))
    created_at: datetime = Field(sa_column=_time(default=True, nullable=False))
    ended_at: datetime | None = Field(default=None, sa_column=_time())
    submission_id: UUID | None = Field(default=None, sa_column=Column(Uuid, nullable=True))
    reassesses: UUID | None = Field(default=None, sa_column=Column(Uuid, nullable=True))
    reuse: bool = Field(sa_column=Column(Boolean, nullable=False, server_default="true"))
    cleared_at: datetime | None = Field(default=None, sa_column=_time())
    tenant: str | None = Field(default=None, sa_column=_text(nullable=True))
    expires_at: datetime | None = Field(default=None, sa_column=_time())


class AttemptRow(SQLModel, table=True):
    """One ended claim of an assessment and what came of it. cleared_at: when retention took the raw answers away."""

    __tablename__ = "attempt"
    __table_args__ = (
        PrimaryKeyConstraint("assessment_id", "attempt", name="attempt_pk"),
        ForeignKeyConstraint(["assessment_id"], ["assessment.id"], name="attempt_assessment_fk"),
        CheckConstraint(
            "outcome IN ('done', 'failed', 'retried', 'given_back', 'crashed', 'cancelled')",
            name="attempt_outcome_known",
        ),
    )

    assessment_id: UUID = Field(sa_column=Column(Uuid))
    attempt: int
    outcome: str = Field(sa_column=_text())
    worker: str | None = Field(default=None, sa_column=_text(nullable=True))
    claimed_at: datetime | None = Field(default=None, sa_column=_time())
    ended_at: datetime = Field(sa_column=_time(default=True, nullable=False))
    error_code: str | None = Field(default=None, sa_column=_text(nullable=True))
    error_detail: str | None = Field(default=None, sa_column=_text(nullable=True))
    timings_ms: dict[str, float] | None = Field(default=None, sa_column=_json())
    asks: list[dict[str, Any]] | None = Field(default=None, sa_column=_json())
    cleared_at: datetime | None = Field(default=None, sa_column=_time())


class VerdictRow(SQLModel, table=True):
    """The answer, with all that is needed to explain and repeat it. One for an assessment.

    Never changed, but that retention may take raw_output away, at cleared_at.
    """

    __tablename__ = "verdict"
    __table_args__ = (
        PrimaryKeyConstraint("assessment_id", name="verdict_pk"),
        ForeignKeyConstraint(["assessment_id"], ["assessment.id"], name="verdict_assessment_fk"),
        ForeignKeyConstraint(
            ["policy_revision_id"], ["policy_revision.id"], name="verdict_policy_revision_fk"
        ),
        ForeignKeyConstraint(["reused_from"], ["assessment.id"], name="verdict_reused_from_fk"),
        CheckConstraint("rating IN ('Safe', 'Unsafe')", name="verdict_rating_known"),
        Index("verdict_feed", "xid", "seq"),
        Index("verdict_pixels", "pixels_sha256"),
        Index("verdict_revision", "policy_revision_id", "assessment_id"),
    )

    assessment_id: UUID = Field(sa_column=Column(Uuid))
    attempt: int
    policy_revision_id: int
    rating: str = Field(sa_column=_text())
    category: str = Field(sa_column=_text())
    rationale: str = Field(sa_column=_text())
    rationale_truncated: bool
    needs_review: bool
    p_unsafe: float | None = None
    p_unsafe_calibrated: float | None = None
    rung: str = Field(sa_column=_text())
    finish_reason: str | None = Field(default=None, sa_column=_text(nullable=True))
    raw_output: str | None = Field(default=None, sa_column=_text(nullable=True))
    judge: str = Field(sa_column=_text())
    model: str = Field(sa_column=_text())
    weights_sha256: str | None = Field(default=None, sa_column=_text(nullable=True))
    runtime: str = Field(sa_column=_text())
    runtime_version: str = Field(sa_column=_text())
    template_mode: str | None = Field(default=None, sa_column=_text(nullable=True))
    prompt_sha256: str | None = Field(default=None, sa_column=_text(nullable=True))
    sampling: dict[str, Any] | None = Field(default=None, sa_column=_json())
    bytes_sha256: str = Field(sa_column=_text())
    pixels_sha256: str = Field(sa_column=_text())
    media_type: str = Field(sa_column=_text())
    width: int
    height: int
    frames: int
    byte_count: int = Field(sa_column=Column(BigInteger, nullable=False))
    view: str = Field(sa_column=_text())
    etag: str | None = Field(default=None, sa_column=_text(nullable=True))
    version: str | None = Field(default=None, sa_column=_text(nullable=True))
    timings_ms: dict[str, float] | None = Field(default=None, sa_column=_json())
    recorded_at: datetime = Field(sa_column=_time(default=True, nullable=False))
    xid: str = Field(sa_column=Column(Xid8, nullable=False, server_default=text("pg_current_xact_id()")))
    seq: int = Field(sa_column=Column(BigInteger, Identity(always=True), nullable=False))
    reused_from: UUID | None = Field(default=None, sa_column=Column(Uuid, nullable=True))
    pdq: str | None = Field(default=None, sa_column=_text(nullable=True))
    pdq_quality: int | None = Field(default=None, sa_column=Column(SmallInteger, nullable=True))
    epoch: int = Field(sa_column=Column(Integer, nullable=False, server_default="1"))
    cleared_at: datetime | None = Field(default=None, sa_column=_time())


class LegalHoldRow(SQLModel, table=True):
    """What retention may not clear: a batch, or one assessment. It stands until it is removed, and is listed after."""

    __tablename__ = "legal_hold"
    __table_args__ = (
        PrimaryKeyConstraint("id", name="legal_hold_pk"),
        ForeignKeyConstraint(["assessment_id"], ["assessment.id"], name="legal_hold_assessment_fk"),
        CheckConstraint("(batch IS NULL) <> (assessment_id IS NULL)", name="legal_hold_of_one"),
        CheckConstraint("(removed_at IS NULL) = (removed_by IS NULL)", name="legal_hold_removed_by_somebody"),
        Index(
            "legal_hold_batch",
            "batch",
            unique=True,
            postgresql_where=text("batch IS NOT NULL AND removed_at IS NULL"),
        ),
        Index(
            "legal_hold_assessment",
            "assessment_id",
            unique=True,
            postgresql_where=text("assessment_id IS NOT NULL AND removed_at IS NULL"),
        ),
    )

    id: int = Field(sa_column=Column(Integer, Identity(always=True)))
    batch: str | None = Field(default=None, sa_column=_text(nullable=True))
    assessment_id: UUID | None = Field(default=None, sa_column=Column(Uuid, nullable=True))
    reason: str = Field(sa_column=_text())
    added_by: str = Field(sa_column=_text())
    added_at: datetime = Field(sa_column=_time(default=True, nullable=False))
    removed_by: str | None = Field(default=None, sa_column=_text(nullable=True))
    removed_at: datetime | None = Field(default=None, sa_column=_time())


class SweepRow(SQLModel, table=True):
    """When the ledger was last swept, and by whom: one row, the sweeper's own sign of life."""

    __tablename__ = "sweep"
    __table_args__ = (
        PrimaryKeyConstraint("id", name="sweep_pk"),
        CheckConstraint("id = 1", name="sweep_one_row"),
    )

    id: int = Field(default=1, sa_column=Column(SmallInteger, autoincrement=False))
    swept_at: datetime = Field(sa_column=_time(nullable=False))
    worker: str = Field(sa_column=_text())
    rung: int = Field(sa_column=Column(BigInteger, nullable=False, server_default="0"))
    expired: int = Field(sa_column=Column(BigInteger, nullable=False, server_default="0"))


class AuditPlaceRow(SQLModel, table=True):
    """How far the audit has come in one of its parts. place: where the next turn goes on; "" at the beginning.

    rows, found: compared, and breaches by check, in this round. found_before: those of the last whole one.
    """

    __tablename__ = "audit_place"
    __table_args__ = (PrimaryKeyConstraint("part", name="audit_place_pk"),)

    part: str = Field(sa_column=_text())
    place: str = Field(sa_column=_text())
    rows: int = Field(sa_column=Column(BigInteger, nullable=False))
    found: dict[str, int] = Field(sa_column=Column(JSONB, nullable=False))
    found_before: dict[str, int] = Field(sa_column=Column(JSONB, nullable=False))
    taken_at: datetime = Field(sa_column=_time(nullable=False))
    completed_at: datetime | None = Field(default=None, sa_column=_time())


class WorkerRow(SQLModel, table=True):
    """A worker process as it last said it is. heard_until: if it does not say so again by then, it counts as silent."""

    __tablename__ = "worker"
    __table_args__ = (
        PrimaryKeyConstraint("name", name="worker_pk"),
        {"postgresql_with": {"fillfactor": 50}},
    )

    name: str = Field(sa_column=_text())
    host: str = Field(sa_column=_text())
    pid: int
    gpu: str | None = Field(default=None, sa_column=_text(nullable=True))
    judge: str = Field(sa_column=_text())
    version: str = Field(sa_column=_text())
    runtime: str | None = Field(default=None, sa_column=_text(nullable=True))
    runtime_version: str | None = Field(default=None, sa_column=_text(nullable=True))
    runtime_state: str | None = Field(default=None, sa_column=_text(nullable=True))
    model: str | None = Field(default=None, sa_column=_text(nullable=True))
    ready: bool
    waits: list[dict[str, Any]] = Field(sa_column=Column(JSONB, nullable=False))
    in_hand: int
    in_hand_limit: int
    in_flight: int
    in_flight_limit: int
    started_at: datetime = Field(sa_column=_time(nullable=False))
    seen_at: datetime = Field(sa_column=_time(nullable=False))
    heard_until: datetime = Field(sa_column=_time(nullable=False))


class PauseRow(SQLModel, table=True):
    """Nothing of this batch, policy or tenant is claimed while the row is here; name is '' for everything."""

    __tablename__ = "pause"
    __table_args__ = (
        PrimaryKeyConstraint("scope", "name", name="pause_pk"),
        CheckConstraint("scope IN ('everything', 'batch', 'policy', 'tenant')", name="pause_scope_known"),
    )

    scope: str = Field(sa_column=_text())
    name: str = Field(sa_column=_text())
    reason: str = Field(sa_column=_text())
    paused_by: str = Field(sa_column=_text())
    paused_at: datetime = Field(sa_column=_time(default=True, nullable=False))


class CapRow(SQLModel, table=True):
    """At most in_hand assessments of this batch or tenant are rung or running at once."""

    __tablename__ = "cap"
    __table_args__ = (
        PrimaryKeyConstraint("scope", "name", name="cap_pk"),
        CheckConstraint("scope IN ('batch', 'tenant')", name="cap_scope_known"),
        CheckConstraint("in_hand > 0", name="cap_positive"),
    )

    scope: str = Field(sa_column=_text())
    name: str = Field(sa_column=_text())
    in_hand: int
    set_by: str = Field(sa_column=_text())
    set_at: datetime = Field(sa_column=_time(default=True, nullable=False))


class TallyRow(SQLModel, table=True):
    """How many assessments of a batch and tenant ('' for none) were in a state a minute ago."""

    __tablename__ = "tally"
    __table_args__ = (PrimaryKeyConstraint("batch", "tenant", "state", name="tally_pk"),)

    batch: str = Field(sa_column=_text())
    tenant: str = Field(sa_column=_text())
    state: str = Field(sa_column=_text())
    n: int = Field(sa_column=Column(BigInteger, nullable=False))


# What has changed since: appended by triggers, so that writers do not queue for one row of the tally.
TALLY_CHANGE = Table(
    "tally_change",
    SQLModel.metadata,
    Column("batch", Text, nullable=False),
    Column("tenant", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("n", Integer, nullable=False),
    Column("at", DateTime(timezone=True), nullable=False, server_default=NOW),
    Index("tally_change_at", "at"),
)


class RequestRow(SQLModel, table=True):
    """A request that came with an Idempotency-Key. owner: the token's name; seed: of the ids of what it submits."""

    __tablename__ = "request"
    __table_args__ = (
        PrimaryKeyConstraint("owner", "key", name="request_pk"),
        Index("request_begun", "begun_at"),
    )

    owner: str = Field(sa_column=_text())
    key: str = Field(sa_column=_text())
    body_sha256: str = Field(sa_column=_text())
    seed: UUID = Field(sa_column=Column(Uuid, nullable=False))
    answer: str | None = Field(default=None, sa_column=_text(nullable=True))
    begun_at: datetime = Field(sa_column=_time(default=True, nullable=False))


class RejectedMessageRow(SQLModel, table=True):
    """A message of a plain Celery client of which no row could be made.

    sha256: of its bytes, so that one that comes again is counted in `times`. bytes: its size. body: what it was, without
    secrets and cut short. uri: as it came, for who sends it again; it may hold a secret, so that watchers do not see it.
    assessment_id: what it became when it was sent again, at resubmitted_at.
    """

    __tablename__ = "rejected_message"
    __table_args__ = (
        PrimaryKeyConstraint("id", name="rejected_message_pk"),
        UniqueConstraint("sha256", name="rejected_message_once"),
    )

    id: int = Field(sa_column=Column(BigInteger, Identity(always=True)))
    sha256: str = Field(sa_column=_text())
    code: str = Field(sa_column=_text())
    detail: str = Field(sa_column=_text())
    queue: str = Field(sa_column=_text())
    size: int = Field(sa_column=Column("bytes", BigInteger, nullable=False))
    body: str = Field(sa_column=_text())
    task_id: str | None = Field(default=None, sa_column=_text(nullable=True))
    task: str | None = Field(default=None, sa_column=_text(nullable=True))
    uri: str | None = Field(default=None, sa_column=_text(nullable=True))
    policy: str | None = Field(default=None, sa_column=_text(nullable=True))
    priority: int = Field(sa_column=Column(SmallInteger, nullable=False))
    not_before: datetime | None = Field(default=None, sa_column=_time())
    expires_at: datetime | None = Field(default=None, sa_column=_time())
    times: int = Field(sa_column=Column(Integer, nullable=False, server_default="1"))
    rejected_at: datetime = Field(sa_column=_time(default=True, nullable=False))
    last_at: datetime = Field(sa_column=_time(default=True, nullable=False))
    worker: str = Field(sa_column=_text())
    resubmitted_at: datetime | None = Field(default=None, sa_column=_time())
    assessment_id: UUID | None = Field(default=None, sa_column=Column(Uuid, nullable=True))

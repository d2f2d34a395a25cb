"""The tables of what is judged, as SQLModel classes. Times carry their zone; constraints carry their names.

`attempt` and `verdict` are append-only, except that retention clears raw outputs, once. SQLModel tables do not
validate, so only checked values are written to them.
"""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    REAL,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    PrimaryKeyConstraint,
    SmallInteger,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field, SQLModel

from moderation.ledger.columns import Xid8, json_column, text_column, time_column

# A lane: what is of one tenant, batch and policy. Each is found in one step, however long the others are.
LANE = (
    "hashtextextended((((COALESCE(tenant, ''::text) || ' '::text) || COALESCE(batch, ''::text)) || ' '::text)"
    " || policy, 0)"
)


class PolicyRevisionRow(SQLModel, table=True):
    """A policy revision. `document` is the whole policy; `prompt` its rendered text. Never changed, only retired."""

    __tablename__ = "policy_revision"
    __table_args__ = (
        PrimaryKeyConstraint("id", name="policy_revision_pk"),
        UniqueConstraint("policy", "revision", name="policy_revision_once"),
    )

    id: int = Field(sa_column=Column(Integer, Identity(always=True)))
    policy: str = Field(sa_column=text_column())
    revision: int
    title: str = Field(sa_column=text_column())
    document: dict[str, Any] = Field(sa_column=Column(JSONB, nullable=False))
    prompt: str = Field(sa_column=text_column())
    prompt_sha256: str = Field(sa_column=text_column())
    created_at: datetime = Field(sa_column=time_column(default=True, nullable=False))
    created_by: str = Field(sa_column=text_column())
    reason: str = Field(sa_column=text_column())
    retired_at: datetime | None = Field(default=None, sa_column=time_column())


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
    purpose: why it is judged, where nobody submitted it: evaluation, shadow or golden. It is in no feed, view or export.
    purpose_of: the live assessment that a shadow is of, or the golden item.
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
        CheckConstraint("purpose IN ('evaluation', 'shadow', 'golden')", name="assessment_purpose_known"),
        Index("assessment_purpose", "purpose", "purpose_of", postgresql_where=text("purpose IS NOT NULL")),
        # Every row is updated three times in its life: room in the page keeps it in place.
        {"postgresql_with": {"fillfactor": 70}},
    )

    id: UUID = Field(sa_column=Column(Uuid))
    uri: str = Field(sa_column=text_column())
    policy: str = Field(sa_column=text_column())
    policy_revision_id: int
    key: str | None = Field(default=None, sa_column=text_column(nullable=True))
    batch: str | None = Field(default=None, sa_column=text_column(nullable=True))
    priority: int = Field(sa_column=Column(SmallInteger, nullable=False))
    meta: dict[str, Any] | None = Field(default=None, sa_column=Column("metadata", JSONB, nullable=True))
    state: str = Field(sa_column=Column(Text, nullable=False, server_default="queued"))
    attempt: int = Field(sa_column=Column(Integer, nullable=False, server_default="0"))
    charged: int = Field(sa_column=Column(Integer, nullable=False, server_default="0"))
    crashes: int = Field(sa_column=Column(Integer, nullable=False, server_default="0"))
    worker: str | None = Field(default=None, sa_column=text_column(nullable=True))
    claimed_at: datetime | None = Field(default=None, sa_column=time_column())
    lease_until: datetime | None = Field(default=None, sa_column=time_column())
    not_before: datetime | None = Field(default=None, sa_column=time_column())
    ring_at: datetime | None = Field(default=None, sa_column=time_column())
    rung_at: datetime | None = Field(default=None, sa_column=time_column())
    error_code: str | None = Field(default=None, sa_column=text_column(nullable=True))
    error_detail: str | None = Field(default=None, sa_column=text_column(nullable=True))
    created_at: datetime = Field(sa_column=time_column(default=True, nullable=False))
    ended_at: datetime | None = Field(default=None, sa_column=time_column())
    submission_id: UUID | None = Field(default=None, sa_column=Column(Uuid, nullable=True))
    reassesses: UUID | None = Field(default=None, sa_column=Column(Uuid, nullable=True))
    reuse: bool = Field(sa_column=Column(Boolean, nullable=False, server_default="true"))
    cleared_at: datetime | None = Field(default=None, sa_column=time_column())
    tenant: str | None = Field(default=None, sa_column=text_column(nullable=True))
    purpose: str | None = Field(default=None, sa_column=text_column(nullable=True))
    purpose_of: UUID | None = Field(default=None, sa_column=Column(Uuid, nullable=True))
    expires_at: datetime | None = Field(default=None, sa_column=time_column())


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
    outcome: str = Field(sa_column=text_column())
    worker: str | None = Field(default=None, sa_column=text_column(nullable=True))
    claimed_at: datetime | None = Field(default=None, sa_column=time_column())
    ended_at: datetime = Field(sa_column=time_column(default=True, nullable=False))
    error_code: str | None = Field(default=None, sa_column=text_column(nullable=True))
    error_detail: str | None = Field(default=None, sa_column=text_column(nullable=True))
    timings_ms: dict[str, float] | None = Field(default=None, sa_column=json_column())
    asks: list[dict[str, Any]] | None = Field(default=None, sa_column=json_column())
    cleared_at: datetime | None = Field(default=None, sa_column=time_column())


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
    rating: str = Field(sa_column=text_column())
    category: str = Field(sa_column=text_column())
    rationale: str = Field(sa_column=text_column())
    rationale_truncated: bool
    needs_review: bool
    p_unsafe: float | None = None
    p_unsafe_calibrated: float | None = None
    rung: str = Field(sa_column=text_column())
    finish_reason: str | None = Field(default=None, sa_column=text_column(nullable=True))
    raw_output: str | None = Field(default=None, sa_column=text_column(nullable=True))
    judge: str = Field(sa_column=text_column())
    model: str = Field(sa_column=text_column())
    weights_sha256: str | None = Field(default=None, sa_column=text_column(nullable=True))
    runtime: str = Field(sa_column=text_column())
    runtime_version: str = Field(sa_column=text_column())
    template_mode: str | None = Field(default=None, sa_column=text_column(nullable=True))
    prompt_sha256: str | None = Field(default=None, sa_column=text_column(nullable=True))
    sampling: dict[str, Any] | None = Field(default=None, sa_column=json_column())
    bytes_sha256: str = Field(sa_column=text_column())
    pixels_sha256: str = Field(sa_column=text_column())
    media_type: str = Field(sa_column=text_column())
    width: int
    height: int
    frames: int
    byte_count: int = Field(sa_column=Column(BigInteger, nullable=False))
    view: str = Field(sa_column=text_column())
    etag: str | None = Field(default=None, sa_column=text_column(nullable=True))
    version: str | None = Field(default=None, sa_column=text_column(nullable=True))
    timings_ms: dict[str, float] | None = Field(default=None, sa_column=json_column())
    recorded_at: datetime = Field(sa_column=time_column(default=True, nullable=False))
    xid: str = Field(sa_column=Column(Xid8, nullable=False, server_default=text("pg_current_xact_id()")))
    seq: int = Field(sa_column=Column(BigInteger, Identity(always=True), nullable=False))
    reused_from: UUID | None = Field(default=None, sa_column=Column(Uuid, nullable=True))
    pdq: str | None = Field(default=None, sa_column=text_column(nullable=True))
    pdq_quality: int | None = Field(default=None, sa_column=Column(SmallInteger, nullable=True))
    epoch: int = Field(sa_column=Column(Integer, nullable=False, server_default="1"))
    cleared_at: datetime | None = Field(default=None, sa_column=time_column())
    views_differ: float | None = Field(default=None, sa_column=Column(REAL, nullable=True))
    review_reasons: list[str] | None = Field(default=None, sa_column=Column(ARRAY(Text), nullable=True))


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

    id: int = Field(default=None, sa_column=Column(Integer, Identity(always=True)))
    batch: str | None = Field(default=None, sa_column=text_column(nullable=True))
    assessment_id: UUID | None = Field(default=None, sa_column=Column(Uuid, nullable=True))
    reason: str = Field(sa_column=text_column())
    added_by: str = Field(sa_column=text_column())
    added_at: datetime = Field(default=None, sa_column=time_column(default=True, nullable=False))
    removed_by: str | None = Field(default=None, sa_column=text_column(nullable=True))
    removed_at: datetime | None = Field(default=None, sa_column=time_column())

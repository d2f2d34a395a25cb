"""The tables of the work itself: sweeps, audits, workers, pauses, caps, counts and requests."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    Identity,
    Index,
    Integer,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field, SQLModel

from moderation.ledger.columns import NOW, text_column, time_column


class SweepRow(SQLModel, table=True):
    """When the ledger was last swept, and by whom: one row, the sweeper's own sign of life."""

    __tablename__ = "sweep"
    __table_args__ = (
        PrimaryKeyConstraint("id", name="sweep_pk"),
        CheckConstraint("id = 1", name="sweep_one_row"),
    )

    id: int = Field(default=1, sa_column=Column(SmallInteger, autoincrement=False))
    swept_at: datetime = Field(sa_column=time_column(nullable=False))
    worker: str = Field(sa_column=text_column())
    rung: int = Field(sa_column=Column(BigInteger, nullable=False, server_default="0"))
    expired: int = Field(sa_column=Column(BigInteger, nullable=False, server_default="0"))


class AuditPlaceRow(SQLModel, table=True):
    """How far the audit has come in one of its parts. place: where the next turn goes on; "" at the beginning.

    rows, found: compared, and breaches by check, in this round. found_before: those of the last whole one.
    """

    __tablename__ = "audit_place"
    __table_args__ = (PrimaryKeyConstraint("part", name="audit_place_pk"),)

    part: str = Field(sa_column=text_column())
    place: str = Field(sa_column=text_column())
    rows: int = Field(sa_column=Column(BigInteger, nullable=False))
    found: dict[str, int] = Field(sa_column=Column(JSONB, nullable=False))
    found_before: dict[str, int] = Field(sa_column=Column(JSONB, nullable=False))
    taken_at: datetime = Field(sa_column=time_column(nullable=False))
    completed_at: datetime | None = Field(default=None, sa_column=time_column())


class WorkerRow(SQLModel, table=True):
    """A worker process as it last said it is. heard_until: if it does not say so again by then, it counts as silent."""

    __tablename__ = "worker"
    __table_args__ = (
        PrimaryKeyConstraint("name", name="worker_pk"),
        {"postgresql_with": {"fillfactor": 50}},
    )

    name: str = Field(sa_column=text_column())
    host: str = Field(sa_column=text_column())
    pid: int
    gpu: str | None = Field(default=None, sa_column=text_column(nullable=True))
    judge: str = Field(sa_column=text_column())
    version: str = Field(sa_column=text_column())
    runtime: str | None = Field(default=None, sa_column=text_column(nullable=True))
    runtime_version: str | None = Field(default=None, sa_column=text_column(nullable=True))
    runtime_state: str | None = Field(default=None, sa_column=text_column(nullable=True))
    model: str | None = Field(default=None, sa_column=text_column(nullable=True))
    ready: bool
    waits: list[dict[str, Any]] = Field(sa_column=Column(JSONB, nullable=False))
    in_hand: int  # busy threads; claims are counted in the table of assessments
    in_hand_limit: int
    in_flight: int
    in_flight_limit: int
    started_at: datetime = Field(sa_column=time_column(nullable=False))
    seen_at: datetime = Field(sa_column=time_column(nullable=False))
    heard_until: datetime = Field(sa_column=time_column(nullable=False))


class PauseRow(SQLModel, table=True):
    """Nothing of this batch, policy or tenant is claimed while the row is here; name is '' for everything."""

    __tablename__ = "pause"
    __table_args__ = (
        PrimaryKeyConstraint("scope", "name", name="pause_pk"),
        CheckConstraint("scope IN ('everything', 'batch', 'policy', 'tenant')", name="pause_scope_known"),
    )

    scope: str = Field(sa_column=text_column())
    name: str = Field(sa_column=text_column())
    reason: str = Field(sa_column=text_column())
    paused_by: str = Field(sa_column=text_column())
    paused_at: datetime = Field(sa_column=time_column(default=True, nullable=False))


class CapRow(SQLModel, table=True):
    """At most in_hand assessments of this batch or tenant are rung or running at once."""

    __tablename__ = "cap"
    __table_args__ = (
        PrimaryKeyConstraint("scope", "name", name="cap_pk"),
        CheckConstraint("scope IN ('batch', 'tenant')", name="cap_scope_known"),
        CheckConstraint("in_hand > 0", name="cap_positive"),
    )

    scope: str = Field(sa_column=text_column())
    name: str = Field(sa_column=text_column())
    in_hand: int
    set_by: str = Field(sa_column=text_column())
    set_at: datetime = Field(sa_column=time_column(default=True, nullable=False))


class TallyRow(SQLModel, table=True):
    """How many assessments of a batch and tenant ('' for none) were in a state a minute ago."""

    __tablename__ = "tally"
    __table_args__ = (PrimaryKeyConstraint("batch", "tenant", "state", name="tally_pk"),)

    batch: str = Field(sa_column=text_column())
    tenant: str = Field(sa_column=text_column())
    state: str = Field(sa_column=text_column())
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

    owner: str = Field(sa_column=text_column())
    key: str = Field(sa_column=text_column())
    body_sha256: str = Field(sa_column=text_column())
    seed: UUID = Field(sa_column=Column(Uuid, nullable=False))
    answer: str | None = Field(default=None, sa_column=text_column(nullable=True))
    begun_at: datetime = Field(sa_column=time_column(default=True, nullable=False))


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
    sha256: str = Field(sa_column=text_column())
    code: str = Field(sa_column=text_column())
    detail: str = Field(sa_column=text_column())
    queue: str = Field(sa_column=text_column())
    size: int = Field(sa_column=Column("bytes", BigInteger, nullable=False))
    body: str = Field(sa_column=text_column())
    task_id: str | None = Field(default=None, sa_column=text_column(nullable=True))
    task: str | None = Field(default=None, sa_column=text_column(nullable=True))
    uri: str | None = Field(default=None, sa_column=text_column(nullable=True))
    policy: str | None = Field(default=None, sa_column=text_column(nullable=True))
    priority: int = Field(sa_column=Column(SmallInteger, nullable=False))
    not_before: datetime | None = Field(default=None, sa_column=time_column())
    expires_at: datetime | None = Field(default=None, sa_column=time_column())
    times: int = Field(sa_column=Column(Integer, nullable=False, server_default="1"))
    rejected_at: datetime = Field(sa_column=time_column(default=True, nullable=False))
    last_at: datetime = Field(sa_column=time_column(default=True, nullable=False))
    worker: str = Field(sa_column=text_column())
    resubmitted_at: datetime | None = Field(default=None, sa_column=time_column())
    assessment_id: UUID | None = Field(default=None, sa_column=Column(Uuid, nullable=True))

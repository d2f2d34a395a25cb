"""The tables of evaluation: runs and their rows, gates and releases, shadows, golden items."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Double,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    PrimaryKeyConstraint,
    Uuid,
    text,
)
from sqlmodel import Field, SQLModel

from moderation.ledger.columns import json_column, text_column, time_column

_LOGIN = text("SESSION_USER")


class EvaluationRunRow(SQLModel, table=True):
    """One measurement of verdicts against labels. Never changed.

    id: from a digest of the report, so the same measurement is the same row. seq: the order of runs. login: whose
    session wrote it. policy_revision_id: None where each row was judged under a policy of its own. uniform: whether one
    model, weights and prompt mode gave all verdicts. report: all that is needed to repeat it.
    """

    __tablename__ = "evaluation_run"
    __table_args__ = (
        PrimaryKeyConstraint("id", name="evaluation_run_pk"),
        ForeignKeyConstraint(
            ["policy_revision_id"], ["policy_revision.id"], name="evaluation_run_policy_revision_fk"
        ),
        Index("evaluation_run_data", "data_sha256", "policy_revision_id"),
    )

    id: UUID = Field(sa_column=Column(Uuid))
    seq: int = Field(sa_column=Column(BigInteger, Identity(always=True), nullable=False))
    created_at: datetime = Field(sa_column=time_column(default=True, nullable=False))
    created_by: str = Field(sa_column=text_column())
    login: str = Field(sa_column=text_column(default=_LOGIN))
    source: str = Field(sa_column=text_column())
    data_sha256: str = Field(sa_column=text_column())
    policy: str = Field(sa_column=text_column())
    policy_revision_id: int | None = None
    prompt_sha256: str | None = Field(default=None, sa_column=text_column(nullable=True))
    model: str | None = Field(default=None, sa_column=text_column(nullable=True))
    weights_sha256: str | None = Field(default=None, sa_column=text_column(nullable=True))
    template_mode: str | None = Field(default=None, sa_column=text_column(nullable=True))
    uniform: bool
    code_sha256: str = Field(sa_column=text_column())
    seed: int = Field(sa_column=Column(BigInteger, nullable=False))
    confusion: dict[str, int] = Field(sa_column=json_column(nullable=False))
    metrics: dict[str, Any] = Field(sa_column=json_column(nullable=False))
    report: dict[str, Any] = Field(sa_column=json_column(nullable=False))


class EvaluationItemRow(SQLModel, table=True):
    """A labelled row of a run and what became of it. code: why it is not scored; None where it is. Never changed."""

    __tablename__ = "evaluation_item"
    __table_args__ = (
        PrimaryKeyConstraint("run_id", "row", name="evaluation_item_pk"),
        ForeignKeyConstraint(["run_id"], ["evaluation_run.id"], name="evaluation_item_run_fk"),
    )

    run_id: UUID = Field(sa_column=Column(Uuid))
    row: str = Field(sa_column=text_column())
    image: str = Field(sa_column=text_column())
    assessment_id: UUID | None = Field(default=None, sa_column=Column(Uuid, nullable=True))
    unsafe: bool
    category: str | None = Field(default=None, sa_column=text_column(nullable=True))
    policy: str | None = Field(default=None, sa_column=text_column(nullable=True))
    exception: bool
    groups: list[str | None] | None = Field(default=None, sa_column=json_column())
    code: str | None = Field(default=None, sa_column=text_column(nullable=True))
    said_unsafe: bool | None = None
    said: str | None = Field(default=None, sa_column=text_column(nullable=True))
    p_unsafe: float | None = None
    p_calibrated: float | None = None
    needs_review: bool | None = Field(default=None, sa_column=Column(Boolean, nullable=True))


class PolicyGateRow(SQLModel, table=True):
    """What a revision of the policy must pass before it goes live; the newest row counts. Never changed."""

    __tablename__ = "policy_gate"
    __table_args__ = (
        PrimaryKeyConstraint("id", name="policy_gate_pk"),
        Index("policy_gate_policy", "policy", "id"),
    )

    id: int = Field(sa_column=Column(Integer, Identity(always=True)))
    policy: str = Field(sa_column=text_column())
    data_sha256: str = Field(sa_column=text_column())
    weights_sha256: str | None = Field(default=None, sa_column=text_column(nullable=True))
    template_mode: str | None = Field(default=None, sa_column=text_column(nullable=True))
    rules: list[dict[str, Any]] = Field(sa_column=json_column(nullable=False))
    reason: str = Field(sa_column=text_column())
    set_by: str = Field(sa_column=text_column())
    login: str = Field(sa_column=text_column(default=_LOGIN))
    set_at: datetime = Field(sa_column=time_column(default=True, nullable=False))


class PolicyReleaseRow(SQLModel, table=True):
    """A revision that went live, or a model under it: by which run, or past the gate for which reason. Never changed."""

    __tablename__ = "policy_release"
    __table_args__ = (
        PrimaryKeyConstraint("id", name="policy_release_pk"),
        ForeignKeyConstraint(
            ["policy_revision_id"], ["policy_revision.id"], name="policy_release_policy_revision_fk"
        ),
        ForeignKeyConstraint(["run_id"], ["evaluation_run.id"], name="policy_release_run_fk"),
        CheckConstraint("kind IN ('before_gate', 'policy', 'model')", name="policy_release_kind_known"),
        Index("policy_release_revision", "policy_revision_id", "id"),
    )

    id: int = Field(sa_column=Column(Integer, Identity(always=True)))
    policy_revision_id: int
    kind: str = Field(sa_column=text_column())
    run_id: UUID | None = Field(default=None, sa_column=Column(Uuid, nullable=True))
    weights_sha256: str | None = Field(default=None, sa_column=text_column(nullable=True))
    template_mode: str | None = Field(default=None, sa_column=text_column(nullable=True))
    override_reason: str | None = Field(default=None, sa_column=text_column(nullable=True))
    released_by: str = Field(sa_column=text_column())
    login: str = Field(sa_column=text_column(default=_LOGIN))
    released_at: datetime = Field(sa_column=time_column(default=True, nullable=False))


class ShadowRow(SQLModel, table=True):
    """A revision that a share of its policy's live items is judged under as well, without effect."""

    __tablename__ = "shadow"
    __table_args__ = (
        PrimaryKeyConstraint("id", name="shadow_pk"),
        ForeignKeyConstraint(
            ["policy_revision_id"], ["policy_revision.id"], name="shadow_policy_revision_fk"
        ),
        CheckConstraint("share > 0 AND share <= 1", name="shadow_share"),
        Index("shadow_once", "policy_revision_id", unique=True, postgresql_where=text("stopped_at IS NULL")),
    )

    id: int = Field(sa_column=Column(Integer, Identity(always=True)))
    policy_revision_id: int
    share: float = Field(sa_column=Column(Double, nullable=False))
    started_by: str = Field(sa_column=text_column())
    started_at: datetime = Field(sa_column=time_column(default=True, nullable=False))
    stopped_by: str | None = Field(default=None, sa_column=text_column(nullable=True))
    stopped_at: datetime | None = Field(default=None, sa_column=time_column())


class GoldenItemRow(SQLModel, table=True):
    """An image whose rating under a policy is known; it is judged again among live items."""

    __tablename__ = "golden_item"
    __table_args__ = (
        PrimaryKeyConstraint("id", name="golden_item_pk"),
        Index(
            "golden_item_once",
            "policy",
            text("md5(uri)"),
            unique=True,
            postgresql_where=text("removed_at IS NULL"),
        ),
    )

    id: UUID = Field(sa_column=Column(Uuid))
    policy: str = Field(sa_column=text_column())
    uri: str = Field(sa_column=text_column())
    unsafe: bool
    category: str | None = Field(default=None, sa_column=text_column(nullable=True))
    added_by: str = Field(sa_column=text_column())
    added_at: datetime = Field(sa_column=time_column(default=True, nullable=False))
    removed_by: str | None = Field(default=None, sa_column=text_column(nullable=True))
    removed_at: datetime | None = Field(default=None, sa_column=time_column())


class GoldenRateRow(SQLModel, table=True):
    """For which share of a policy's live items a golden item is judged beside them."""

    __tablename__ = "golden_rate"
    __table_args__ = (
        PrimaryKeyConstraint("policy", name="golden_rate_pk"),
        CheckConstraint("share > 0 AND share <= 1", name="golden_rate_share"),
    )

    policy: str = Field(sa_column=text_column())
    share: float = Field(sa_column=Column(Double, nullable=False))
    set_by: str = Field(sa_column=text_column())
    set_at: datetime = Field(sa_column=time_column(default=True, nullable=False))

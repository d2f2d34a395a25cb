"""The tables of those who come after: the feed's epochs, named consumers, webhooks."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKeyConstraint,
    Integer,
    PrimaryKeyConstraint,
    UniqueConstraint,
    Uuid,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field, SQLModel

from moderation.ledger.columns import Xid8, count_column, text_column, time_column


class FeedEpochRow(SQLModel, table=True):
    """A span of transaction ids that can be compared. A dump restored into another cluster begins a new one."""

    __tablename__ = "feed_epoch"
    __table_args__ = (PrimaryKeyConstraint("epoch", name="feed_epoch_pk"),)

    epoch: int = Field(sa_column=Column(Integer, autoincrement=False))
    system_identifier: int = Field(sa_column=Column(BigInteger, nullable=False))
    began_at: datetime = Field(sa_column=time_column(default=True, nullable=False))


class ConsumerRow(SQLModel, table=True):
    """A named consumer. epoch, xid, seq: up to where it has acknowledged. fence: grows with each taking of the name.

    given: verdicts that were given out and acknowledged. verified_epoch, verified_xid, verified_seq, verified_given: up
    to this place, and this count, all that passes the filter is known to be given out; no place: nothing is known.
    """

    __tablename__ = "consumer"
    __table_args__ = (PrimaryKeyConstraint("name", name="consumer_pk"),)

    name: str = Field(sa_column=text_column())
    filter: dict[str, Any] = Field(sa_column=Column(JSONB, nullable=False))
    epoch: int
    xid: str = Field(sa_column=Column(Xid8, nullable=False))
    seq: int = Field(sa_column=Column(BigInteger, nullable=False))
    fence: int = Field(sa_column=count_column())
    holder: str | None = Field(default=None, sa_column=text_column(nullable=True))
    lease_until: datetime | None = Field(default=None, sa_column=time_column())
    created_at: datetime = Field(sa_column=time_column(default=True, nullable=False))
    acknowledged_at: datetime | None = Field(default=None, sa_column=time_column())
    given: int = Field(sa_column=count_column())
    verified_epoch: int | None = None
    verified_xid: str | None = Field(default=None, sa_column=Column(Xid8, nullable=True))
    verified_seq: int | None = Field(default=None, sa_column=Column(BigInteger, nullable=True))
    verified_given: int = Field(sa_column=count_column())


class WebhookRow(SQLModel, table=True):
    """An endpoint that verdicts are sent to, in order. epoch, xid, seq: up to where they were delivered or set aside.

    due_at: no turn earlier. rung_at: when a message was sent for its turn, not answered yet.
    failures, failing_since: failed deliveries in a row, and when the first was.
    given: verdicts that were delivered or set aside. verified_...: as of consumers.
    """

    __tablename__ = "webhook"
    __table_args__ = (
        PrimaryKeyConstraint("id", name="webhook_pk"),
        UniqueConstraint("name", name="webhook_name_once"),
    )

    id: UUID = Field(sa_column=Column(Uuid))
    name: str = Field(sa_column=text_column())
    url: str = Field(sa_column=text_column())
    filter: dict[str, Any] = Field(sa_column=Column(JSONB, nullable=False))
    epoch: int
    xid: str = Field(sa_column=Column(Xid8, nullable=False))
    seq: int = Field(sa_column=Column(BigInteger, nullable=False))
    fence: int = Field(sa_column=count_column())
    holder: str | None = Field(default=None, sa_column=text_column(nullable=True))
    lease_until: datetime | None = Field(default=None, sa_column=time_column())
    due_at: datetime = Field(sa_column=time_column(default=True, nullable=False))
    rung_at: datetime | None = Field(default=None, sa_column=time_column())
    failures: int = Field(sa_column=Column(Integer, nullable=False, server_default="0"))
    failing_since: datetime | None = Field(default=None, sa_column=time_column())
    last_error: str | None = Field(default=None, sa_column=text_column(nullable=True))
    delivered: int = Field(sa_column=count_column())
    delivered_at: datetime | None = Field(default=None, sa_column=time_column())
    paused_at: datetime | None = Field(default=None, sa_column=time_column())
    paused_because: str | None = Field(default=None, sa_column=text_column(nullable=True))
    created_at: datetime = Field(sa_column=time_column(default=True, nullable=False))
    given: int = Field(sa_column=count_column())
    verified_epoch: int | None = None
    verified_xid: str | None = Field(default=None, sa_column=Column(Xid8, nullable=True))
    verified_seq: int | None = Field(default=None, sa_column=Column(BigInteger, nullable=True))
    verified_given: int = Field(sa_column=count_column())


class WebhookSecretRow(SQLModel, table=True):
    """What an endpoint's messages are signed with. Several while one is replaced: the older until `valid_until`."""

    __tablename__ = "webhook_secret"
    __table_args__ = (
        PrimaryKeyConstraint("webhook_id", "secret", name="webhook_secret_pk"),
        ForeignKeyConstraint(
            ["webhook_id"], ["webhook.id"], name="webhook_secret_webhook_fk", ondelete="CASCADE"
        ),
    )

    webhook_id: UUID = Field(sa_column=Column(Uuid))
    secret: str = Field(sa_column=text_column())
    created_at: datetime = Field(sa_column=time_column(default=True, nullable=False))
    valid_until: datetime | None = Field(default=None, sa_column=time_column())


class WebhookSetAsideRow(SQLModel, table=True):
    """A verdict that an endpoint did not take for a day. retry_asked_at: it is to be sent again, out of order."""

    __tablename__ = "webhook_set_aside"
    __table_args__ = (
        PrimaryKeyConstraint("webhook_id", "assessment_id", name="webhook_set_aside_pk"),
        ForeignKeyConstraint(
            ["webhook_id"], ["webhook.id"], name="webhook_set_aside_webhook_fk", ondelete="CASCADE"
        ),
        ForeignKeyConstraint(["assessment_id"], ["assessment.id"], name="webhook_set_aside_assessment_fk"),
    )

    webhook_id: UUID = Field(sa_column=Column(Uuid))
    assessment_id: UUID = Field(sa_column=Column(Uuid))
    tries: int
    error: str = Field(sa_column=text_column())
    set_aside_at: datetime = Field(sa_column=time_column(default=True, nullable=False))
    retry_asked_at: datetime | None = Field(default=None, sa_column=time_column())

"""Settings that producers and workers share: typed, frozen, read once from the environment."""

from pathlib import Path
from typing import Literal

from pydantic import AliasChoices, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class ServiceSettings(BaseSettings):
    """Where Postgres and Redis are. Unset means: whatever `moderation.services` finds or starts."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", defer_build=True)

    database_url: SecretStr | None = Field(default=None, validation_alias="DATABASE_URL")
    redis_url: SecretStr | None = Field(
        default=None, validation_alias=AliasChoices("REDIS_URL", "CELERY_BROKER_URL")
    )
    data_dir: Path = Field(default=Path(".vetline"), validation_alias="VETLINE_DATA_DIR")
    # Where people see Flower, for links to it; unset: that of the `vetline up` of this folder.
    flower_url: str | None = Field(default=None, validation_alias="VETLINE_FLOWER_URL")


class LedgerSettings(BaseSettings):
    """How this process talks to Postgres."""

    model_config = SettingsConfigDict(
        env_prefix="VETLINE_LEDGER_", frozen=True, extra="ignore", defer_build=True
    )

    pool_size: int = Field(8, gt=0)  # a statement takes about 1 ms: 8 connections carry 128 threads
    connect_timeout_s: int = Field(5, gt=0)
    statement_timeout_s: float = Field(30, gt=0)
    pool_timeout_s: float = Field(15, gt=0)  # waiting longer for a connection means that the database is down


class LeaseSettings(BaseSettings):
    """The protocol of claims. The three times belong together: see the reasons."""

    model_config = SettingsConfigDict(
        env_prefix="VETLINE_LEASE_", frozen=True, extra="ignore", defer_build=True
    )

    # Three missed heartbeats. With `ring_again_s` for a ring that is lost as well, and a sweep, a dead worker's items
    # run again within a minute even then.
    lease_s: float = Field(30, gt=0)
    beat_s: float = Field(8, gt=0)  # leaves room for three beats and a slow statement in one lease
    max_attempts: int = Field(5, gt=0)  # charged attempts of a transient failure before it is a failure
    # Deaths with an item in hand before it runs alone under observation.
    suspect_crashes: int = Field(2, gt=0)
    max_crashes: int = Field(10, gt=0)  # an item that takes whole machines down cannot be observed: stop here
    retry_base_s: float = Field(2, gt=0)  # full jitter over base * 2^n
    retry_cap_s: float = Field(300, gt=0)


class QueueSettings(BaseSettings):
    """The doorbell in Redis."""

    model_config = SettingsConfigDict(
        env_prefix="VETLINE_QUEUE_", frozen=True, extra="ignore", defer_build=True
    )

    # The list of plain Celery clients. Rows are rung in lists of their own beside it: NAME.urgent and NAME.due.
    name: str = "vetline"
    # More lists that plain clients push to, with commas. `celery`, where nothing else uses that Redis: it is where a
    # client pushes that names no queue, and what is taken from it is gone for other programs.
    plain_also: str = ""
    # Of several such lists, as kombu has it: in turn, in the order in which they are named, or in that of the alphabet.
    order_strategy: Literal["round_robin", "priority", "sorted"] = "round_robin"
    # After so long a plain message that was taken and is not in the ledger was a dead worker's: its commit takes
    # milliseconds, and one that comes twice is one row.
    taken_s: float = Field(30, ge=1)
    key_prefix: str = ""  # for several installations on one Redis
    # Rows rung ahead in each of the two queues: a second's work of 16 GPUs at 60 images/s. Producers stop at half, so
    # that the relay always finds room for what is older, lower, or of somebody else.
    depth: int = Field(1000, gt=0)
    # Of the room beside the urgent queue, what low rows get while normal ones wait as well.
    low_share: float = Field(0.2, ge=0, le=1)
    # Rows that one message may ring: Celery's price is about 0.8 ms of CPU for each message. Used where items are quick.
    bundle: int = Field(16, gt=0)
    bound: int | None = Field(None, gt=0)  # rows that may wait in the ledger before producers are held up
    when_full: Literal["refuse", "wait"] = "refuse"  # what then happens to who submits
    # A row rung so long ago, not claimed, and its message not in the queue any more: the ring was lost. Workers claim
    # within milliseconds of popping.
    ring_again_s: float = Field(8, gt=0)
    sweep_s: float = Field(1, gt=0)
    socket_timeout_s: float = Field(5, gt=0)

    @property
    def names(self) -> tuple[str, str]:
        """The queues that ring rows: what is urgent, and the rest. Workers read them in turn."""
        return f"{self.name}.urgent", f"{self.name}.due"

    @property
    def plain_names(self) -> tuple[str, ...]:
        """The queues of plain Celery clients, in the order in which they are named."""
        also = (name.strip() for name in self.plain_also.split(","))
        return tuple(dict.fromkeys((self.name, *(name for name in also if name))))


class RetentionSettings(BaseSettings):
    """How long what may be cleared is kept, counted from the end of an assessment."""

    model_config = SettingsConfigDict(
        env_prefix="VETLINE_RETENTION_", frozen=True, extra="ignore", defer_build=True
    )

    # A decision may be complained about for six months (DSA, Article 20): at most 184 days, and some to answer in.
    raw_days: int = Field(190, gt=0)
    uri_days: int = Field(365, gt=0)  # a year in which an image can be judged again under a newer policy
    page_rows: int = Field(1000, gt=0)  # assessments in one transaction: some 50 ms of row locks
    pause_s: float = Field(0.02, ge=0)  # between pages, so that who waits for the disk gets a turn


class AuditSettings(BaseSettings):
    """How much of the ledger is reconciled with itself each minute, by one of the workers."""

    model_config = SettingsConfigDict(env_prefix="VETLINE_AUDIT_", frozen=True, extra="ignore")

    every_s: float = Field(60, gt=0)
    turn_s: float = Field(2, gt=0)  # of one connection and one core, at most, and what the last slice takes
    rows: int = Field(5000, gt=1)  # of a slice: some tenths of a second
    # A batch of more is left to `vetline audit`: one count reads it all.
    heavy_rows: int = Field(200_000, gt=0)
    ids: int = Field(20, gt=0)  # named of each kind of breach


class LogSettings(BaseSettings):
    """What is logged, and as what."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", defer_build=True)

    level: Literal["debug", "info", "warning", "error"] = Field(default="info", validation_alias="LOG_LEVEL")
    style: Literal["auto", "json", "console"] = Field(default="auto", validation_alias="VETLINE_LOG_STYLE")

"""An assessment is one image under one policy revision: what is submitted, claimed, and ends done or failed."""

import re
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum, StrEnum
from typing import Annotated, Any
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, field_validator
from pydantic_core import from_json, to_json


class State(StrEnum):
    """queued -> running -> done | failed | cancelled; a retry moves failed back to queued."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


TERMINAL = frozenset({State.DONE, State.FAILED, State.CANCELLED})


class Priority(IntEnum):
    """Lower rings first. Stored as a small integer, so the order is the database's own."""

    HIGH = 0
    NORMAL = 1
    LOW = 2

    @classmethod
    def named(cls, name: str) -> "Priority":
        return cls[name.upper()]


SCHEMES = ("https", "http", "s3", "file", "data")
IMAGE_URI = f"an image URI starts with {', '.join(SCHEMES[:-1])} or {SCHEMES[-1]} and a colon"
PRINTABLE = "control characters are not allowed"
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")  # as JSON escapes it; not a backslash that is itself escaped
# Control characters and halves of surrogate pairs: Postgres cannot hold NUL nor a half, and a line break in a URI is how
# headers are forged. A pattern, as a look at each character in Python was the largest part of a submission in a profile.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")
_METADATA_BYTES = 16_384  # a reference and some labels, not a document: it is kept for as long as the verdict


class Submission(BaseModel):
    """One image to judge under one policy, as a producer names it.

    policy: an id (the revision current at submission is pinned) or id@revision.
    key: idempotency key; the same key under the same policy id is the same assessment.
    reuse: whether a verdict about the same pixels, on the same basis, may answer for this one.
    submission_id: the same for all policies that one image was submitted under; None where it is one.
    tenant: on whose behalf, where a producer submits for several: pauses and caps can name it.
    not_before, expires_at: no claim earlier, and none later, where a plain Celery client says so.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    uri: Annotated[str, Field(min_length=1, max_length=8192)]
    policy: Annotated[str, Field(min_length=1, max_length=128)]
    key: Annotated[str, Field(min_length=1, max_length=512)] | None = None
    priority: Priority = Priority.NORMAL
    batch: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    metadata: dict[str, Any] | None = None
    submission_id: UUID | None = None
    reuse: bool = True
    tenant: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    not_before: AwareDatetime | None = None
    expires_at: AwareDatetime | None = None

    @field_validator("uri")
    @classmethod
    def _names_an_image(cls, uri: str) -> str:
        scheme, colon, rest = uri.partition(":")
        if not colon or not rest or scheme.lower() not in SCHEMES:
            raise ValueError(IMAGE_URI)
        return uri

    @field_validator("uri", "key", "batch", "tenant")
    @classmethod
    def _is_printable(cls, value: str | None) -> str | None:
        if value is not None and _UNPRINTABLE.search(value):
            raise ValueError(PRINTABLE)
        return value

    @field_validator("metadata")
    @classmethod
    def _is_small_json(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        if value is None:
            return None
        written = to_json(value)  # raises ValueError for what is no JSON, lone surrogates included
        if len(written) > _METADATA_BYTES:
            raise ValueError(f"metadata may have {_METADATA_BYTES} bytes as JSON")
        from_json(written, allow_inf_nan=False)
        if _NUL.search(written):
            raise ValueError("metadata may hold no NUL")  # Postgres cannot keep it
        return value


@dataclass(frozen=True, slots=True)
class Ticket:
    """What submit hands back: the assessment's id, and whether this key was known before.

    cancelled: it was known, and somebody cancelled it: a repeat of its key does not undo that, so no verdict will come.
    rung: whether the submitter is to ring it; what is paused or capped waits for the relay.
    """

    id: UUID
    policy: str  # id@revision
    known: bool
    rung: bool = False
    cancelled: bool = False


@dataclass(frozen=True, slots=True)
class Claim:
    """One attempt's right to work on an assessment until `lease_until`, unless renewed.

    attempt: the fence. A write that names an older attempt than the row's changes nothing.
    crashes: how often a worker or runtime died with this item in hand; 2 or more make it a suspect.
    submission_id: the same for the claims of one image that was submitted under several policies.
    """

    id: UUID
    attempt: int
    uri: str
    policy_revision_id: int
    charged: int
    crashes: int
    claimed_at: datetime
    lease_until: datetime
    submission_id: UUID | None = None
    reuse: bool = True

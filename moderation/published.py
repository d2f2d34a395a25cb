"""A verdict as consumers see it: the columns of the view `verdict_history`, and its place in the feed."""

from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any
from uuid import UUID

from moderation.cursor import Cursor


@dataclass(frozen=True, slots=True)
class PublishedVerdict:
    """One verdict. uri: without its secrets. policy: id@revision. The digests are hexadecimal SHA-256."""

    cursor: Cursor
    assessment_id: UUID
    uri: str
    policy: str
    policy_id: str
    policy_revision: int
    batch: str | None
    key: str | None
    metadata: dict[str, Any] | None
    rating: str  # Safe or Unsafe
    category: str
    rationale: str
    rationale_truncated: bool
    needs_review: bool
    p_unsafe: float | None
    p_unsafe_calibrated: float | None
    judge: str
    model: str
    weights_sha256: str | None
    runtime: str
    runtime_version: str
    rung: str
    prompt_sha256: str | None
    bytes_sha256: str
    pixels_sha256: str
    media_type: str
    width: int
    height: int
    frames: int
    byte_count: int
    attempt: int
    reassesses: UUID | None
    reused_from: UUID | None
    submitted_at: datetime
    recorded_at: datetime

    def plain(self) -> dict[str, Any]:
        """As it goes out as JSON: the cursor as its text."""
        return {"cursor": str(self.cursor)} | {name: getattr(self, name) for name in COLUMNS}


COLUMNS = tuple(field.name for field in fields(PublishedVerdict) if field.name != "cursor")

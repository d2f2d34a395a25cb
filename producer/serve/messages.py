"""What crosses the wire, in both directions. Strict: a number is no text, and a field that is not known is refused."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from moderation.assessment import IMAGE_URI, PRINTABLE, SCHEMES, Priority, Ticket
from moderation.ledger.status import Row
from moderation.redaction import redact_uri
from producer.serve.settings import MAX_ITEMS

_PLAIN = r"^[^\x00-\x1f\x7f]+$"  # no control characters
_URI = rf"^({'|'.join(SCHEMES)}):[^\x00-\x1f\x7f]+$"
_POLICIES = 16  # of one image

_POLICY = r"^[a-z0-9][a-z0-9-]*(@[1-9][0-9]{0,8})?$"
VISIBLE = r"^[\x21-\x7e]+$"

# What each pattern asks for, in place of "String should match pattern ...".
SENTENCES = {
    _PLAIN: PRINTABLE,
    _URI: f"{IMAGE_URI}; {PRINTABLE}",
    _POLICY: "a policy is an id in lower case, such as llavaguard-default, or id@revision",
    VISIBLE: "visible ASCII characters are allowed, and no spaces",
}

PolicyRef = Annotated[str, Field(max_length=64, pattern=_POLICY, examples=["llavaguard-default"])]


class _StrictModel(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Image(_StrictModel):
    """One image to judge.

    policy: an id (the revision current now is pinned) or id@revision; or several, each of which judges it.
    key: the same key under the same policy id is the same assessment, whoever sends it.
    reuse: whether a verdict about the same pixels, on the same basis, may answer.
    """

    uri: Annotated[
        str, Field(min_length=1, max_length=8192, pattern=_URI, examples=["https://images.example/1.jpg"])
    ]
    policy: PolicyRef | Annotated[list[PolicyRef], Field(min_length=1, max_length=_POLICIES)]
    key: Annotated[str, Field(min_length=1, max_length=512, pattern=_PLAIN)] | None = None
    priority: Literal["high", "normal", "low"] = "normal"
    batch: Annotated[str, Field(min_length=1, max_length=200, pattern=_PLAIN)] | None = None
    metadata: dict[str, Any] | None = None
    tenant: Annotated[str, Field(min_length=1, max_length=200, pattern=_PLAIN)] | None = None
    reuse: bool = True


Images = Image | Annotated[list[Image], Field(min_length=1, max_length=MAX_ITEMS)]
IMAGES: TypeAdapter[Images] = TypeAdapter(Images)
ONE: TypeAdapter[Image] = TypeAdapter(Image)
MANY: TypeAdapter[list[Image]] = TypeAdapter(
    Annotated[list[Image], Field(min_length=1, max_length=MAX_ITEMS)]
)


class Accepted(_StrictModel):
    """One assessment.

    index: of its image in the request.
    known: whether its key was there before.
    cancelled: it was known and somebody cancelled it, so no verdict will come; another key judges the image.
    """

    index: int
    id: UUID
    policy: str
    known: bool
    cancelled: bool


class Receipt(_StrictModel):
    """Committed, all of them, in the order of the request."""

    assessments: list[Accepted]


class Verdict(_StrictModel):
    rating: Literal["Safe", "Unsafe"]
    category: str
    rationale: str
    rationale_truncated: bool
    needs_review: bool
    p_unsafe: float | None
    p_unsafe_calibrated: float | None
    judge: str
    model: str
    recorded_at: datetime


class Failure(_StrictModel):
    """Why there is no verdict, and none will come unless it is retried. No verdict is not Safe."""

    code: str
    detail: str | None


class Assessment(_StrictModel):
    """How one stands. uri: without its secrets."""

    id: UUID
    state: Literal["queued", "running", "done", "failed", "cancelled"]
    uri: str
    policy: str
    key: str | None
    batch: str | None
    tenant: str | None
    priority: Literal["high", "normal", "low"]
    metadata: dict[str, Any] | None
    attempts: int
    submitted_at: datetime
    ended_at: datetime | None
    verdict: Verdict | None
    failure: Failure | None


class States(_StrictModel):
    queued: int = 0
    running: int = 0
    done: int = 0
    failed: int = 0
    cancelled: int = 0


class Batch(_StrictModel):
    """per_s: ended over the last minute; left_s: at that pace, None where it is not known."""

    name: str
    states: States
    per_s: float
    left_s: int | None


class Health(_StrictModel):
    status: Literal["ok"] = "ok"


def receipt(images: Sequence[int], tickets: Sequence[Ticket]) -> Receipt:
    """images: of which image each ticket is."""
    return Receipt(
        assessments=[
            Accepted(index=index, id=t.id, policy=t.policy, known=t.known, cancelled=t.cancelled)
            for index, t in zip(images, tickets, strict=True)
        ]
    )


def assessment(row: Row) -> Assessment:
    """As `standing` reads it."""
    verdict = None
    if row["rating"] is not None:
        verdict = Verdict(**{name: row[name] for name in Verdict.model_fields})
    failure = None
    if row["state"] == "failed":
        failure = Failure(code=row["error_code"], detail=row["error_detail"])
    names = Assessment.model_fields.keys() & row.keys()
    fields = {name: row[name] for name in names} | {
        "uri": redact_uri(row["uri"]),
        "priority": Priority(row["priority"]).name.lower(),
        "submitted_at": row["created_at"],
    }
    return Assessment(**fields, verdict=verdict, failure=failure)

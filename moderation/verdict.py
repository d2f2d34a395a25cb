"""A verdict is the answer of a judge about one image under one policy revision, with all that explains it."""

from enum import StrEnum
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field


class Rating(StrEnum):
    """The two words that the model was trained to answer with."""

    SAFE = "Safe"
    UNSAFE = "Unsafe"


class Rung(StrEnum):
    """How an answer was reached. The ladder of the sglang judge, in order; the last is for judges without text."""

    STRICT = "strict"  # first answer, strict JSON
    SALVAGE = "salvage"  # rating and category complete in an answer that was cut in its rationale
    RESEED = "reseed"  # asked again with a new seed
    GREEDY = "greedy"  # asked at temperature 0
    GRAMMAR = "grammar"  # asked under a grammar that pins the trained template
    RATING = "rating"  # a one-token question for the rating alone
    CLASSIFIER = "classifier"  # scores of a classifier, no text


class Ask(BaseModel):
    """One question to the runtime and what came back, kept whatever came of it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rung: Rung
    view: str = "whole"  # which view of the image was asked about
    raw: str | None = None
    problem: str | None = None  # why the answer did not parse; None where it did
    finish_reason: str | None = None
    sampling: dict[str, Any] = Field(default_factory=dict)
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    elapsed_ms: float = 0.0


class Judgement(BaseModel):
    """What a judge answers about one view of an image."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rating: Rating
    category: str  # the policy's own name for it, such as "O4: Nudity Content" or "NA: None applying"
    rationale: str
    rationale_truncated: bool = False
    needs_review: bool = False
    p_unsafe: float | None = Field(default=None, ge=0, le=1)  # as the model gave it
    p_unsafe_calibrated: float | None = Field(default=None, ge=0, le=1)
    rung: Rung
    finish_reason: str | None = None
    raw_output: str | None = None
    asks: tuple[Ask, ...] = ()

    judge: str  # sglang, open-nsfw, ...
    model: str
    weights_sha256: str | None = None
    runtime: str  # sglang, onnxruntime, ...
    runtime_version: str
    template_mode: str | None = None
    prompt_sha256: str | None = None  # of the whole prompt as sent, template included
    sampling: dict[str, Any] = Field(default_factory=dict)


class Basis(BaseModel):
    """What a judgement rests on besides image and policy: on the same basis, the same pixels get the same answer.

    rationale: whether one is asked for; a verdict with one serves also who needs none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    judge: str
    model: str
    template_mode: str | None = None
    rationale: bool = True


class ImageFacts(BaseModel):
    """What the decoder found out about an image. Digests are hexadecimal SHA-256."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bytes_sha256: str
    pixels_sha256: str  # of the view that the verdict stands on: RGB rows, oriented
    media_type: str  # sniffed
    width: int  # pixels, oriented as a person sees it
    height: int
    frames: int = 1
    byte_count: int
    view: str = "whole"  # the view that the verdict stands on
    etag: str | None = None
    version: str | None = None
    pdq: str | None = None  # perceptual hash, 64 hexadecimal digits, where it was asked for
    pdq_quality: int | None = None  # 0 to 100
    # How much two views of a frame differ, in levels of 255; None where hardly.
    views_differ: float | None = None
    review_reasons: tuple[str, ...] = ()  # why the picture itself needs a person's look: see REVIEW_REASONS


# Stored: never rename. views_differ: by more than the policy lets pass; the others name what was judged without.
REVIEW_REASONS = ("views_differ", "profile_unreadable", "profile_too_large")


class Verdict(BaseModel):
    """A judgement, the image that it is about, and how long each step took."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    judgement: Judgement
    image: ImageFacts
    timings_ms: dict[str, float] = Field(default_factory=dict)  # fetch, decode, judge
    reused_from: UUID | None = None  # the assessment whose verdict about the same pixels this repeats

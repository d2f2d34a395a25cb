"""A statement of reasons as the DSA Transparency Database checks it. Field names and rules are the database's own.

From `StatementStoreRequest.php` of digital-services-act/transparency-database, June 2026.
"""

from datetime import date
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from moderation.policy.dsa_values import CATEGORIES, EEA, KEYWORDS, RESTRICTIONS

_EARLIEST_CONTENT = date(2000, 1, 1)
_EARLIEST_DECISION = date(2020, 1, 1)
_LATEST = date(2038, 1, 1)


def _listed(prefix: str, known: frozenset[str]) -> AfterValidator:
    def check(value: str) -> str:
        if not value.startswith(prefix) or value.removeprefix(prefix) not in known:
            raise ValueError(f"is not one of the database's {prefix}...")
        return value

    return AfterValidator(check)


Category = Annotated[str, _listed("STATEMENT_CATEGORY_", CATEGORIES)]
Keyword = Annotated[str, _listed("KEYWORD_", KEYWORDS)]
Visibility = Annotated[str, _listed("DECISION_VISIBILITY_", RESTRICTIONS)]
Country = Annotated[str, _listed("", EEA)]
Automated = Literal[
    "AUTOMATED_DECISION_FULLY", "AUTOMATED_DECISION_PARTIALLY", "AUTOMATED_DECISION_NOT_AUTOMATED"
]
Source = Literal[
    "SOURCE_ARTICLE_16", "SOURCE_TRUSTED_FLAGGER", "SOURCE_TYPE_OTHER_NOTIFICATION", "SOURCE_VOLUNTARY"
]
Ground = Annotated[str, Field(min_length=1, max_length=500)]
Explanation = Annotated[str, Field(min_length=1, max_length=2000)]


class Statement(BaseModel):
    """The part of the schema that a restriction of an image's visibility needs. Raises pydantic.ValidationError.

    puid: the platform's own id of the statement, new for each.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    puid: Annotated[str, Field(min_length=1, max_length=500, pattern=r"^[a-zA-Z0-9\-_]+$")]
    decision_visibility: Annotated[tuple[Visibility, ...], Field(min_length=1)]
    decision_ground: Literal["DECISION_GROUND_ILLEGAL_CONTENT", "DECISION_GROUND_INCOMPATIBLE_CONTENT"]
    decision_ground_reference_url: Annotated[str, Field(max_length=500, pattern=r"^https?://\S+$")] | None = (
        None
    )
    illegal_content_legal_ground: Ground | None = None
    illegal_content_explanation: Explanation | None = None
    incompatible_content_ground: Ground | None = None
    incompatible_content_explanation: Explanation | None = None
    category: Category
    category_specification: tuple[Keyword, ...] = ()
    content_type: Annotated[
        tuple[Literal["CONTENT_TYPE_IMAGE", "CONTENT_TYPE_SYNTHETIC_MEDIA"], ...], Field(min_length=1)
    ]
    content_date: Annotated[date, Field(ge=_EARLIEST_CONTENT, le=_LATEST)]
    application_date: Annotated[date, Field(ge=_EARLIEST_DECISION, le=_LATEST)]
    territorial_scope: tuple[Country, ...] = ()
    decision_facts: Annotated[str, Field(min_length=1, max_length=5000)]
    source_type: Source
    source_identity: Annotated[str, Field(max_length=500)] | None = None
    automated_detection: Literal["Yes", "No"]
    automated_decision: Automated

    @model_validator(mode="after")
    def _ground_is_explained(self) -> Self:
        illegal = (self.illegal_content_legal_ground, self.illegal_content_explanation)
        incompatible = (self.incompatible_content_ground, self.incompatible_content_explanation)
        breaks_law = self.decision_ground == "DECISION_GROUND_ILLEGAL_CONTENT"
        needed, foreign = (illegal, incompatible) if breaks_law else (incompatible, illegal)
        if not all(needed):
            raise ValueError("the ground of the decision and its explanation are both required")
        if any(foreign):
            raise ValueError("a decision has one ground: the fields of the other must be empty")
        return self

    @model_validator(mode="after")
    def _own_initiative_has_no_notifier(self) -> Self:
        if self.source_type == "SOURCE_VOLUNTARY" and self.source_identity:
            raise ValueError("what was found on one's own initiative has no source_identity")
        return self

"""What a policy's categories are called in the DSA Transparency Database: the `dsa` part of a policy file.

It is for people and for drafts of statements. The model never sees it, so the prompt and its digest stay as they are.
"""

import difflib
from collections.abc import Set as AbstractSet
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, HttpUrl, field_serializer

from moderation.policy.dsa_values import CATEGORIES, KEYWORDS, RESTRICTIONS
from moderation.policy.text import check_text


def _one_of(value: str, known: AbstractSet[str], what: str) -> str:
    if value in known:
        return value
    close = difflib.get_close_matches(value.upper().replace("-", "_"), known, n=1)
    raise ValueError(
        f"no {what} of the Transparency Database" + (f"; did you mean {close[0]}?" if close else "")
    )


def _category(value: str) -> str:
    return _one_of(value, CATEGORIES, "category")


def _keyword(value: str) -> str:
    return _one_of(value, KEYWORDS, "keyword")


def _restriction(value: str) -> str:
    return _one_of(value, RESTRICTIONS, "restriction")


# The lengths are the database's own.
Ground = Annotated[str, Field(max_length=500), AfterValidator(check_text)]
Explanation = Annotated[str, Field(max_length=2000), AfterValidator(check_text)]
Restriction = Annotated[str, AfterValidator(_restriction)]


class DsaCategory(BaseModel):
    """One category of the policy.

    explanation: why such an image is not allowed. law: the law that it breaks; without one, it breaks the terms.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    category: Annotated[str, AfterValidator(_category)]
    keywords: tuple[Annotated[str, AfterValidator(_keyword)], ...] = ()
    explanation: Explanation | None = None
    law: Ground | None = None


class DsaMapping(BaseModel):
    """What the policy says for all its categories, and of each.

    terms: the clause of the terms and conditions that the policy enforces. restriction: what is done to an image.
    categories: by id, such as O4; the nine that are left out have the defaults.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    terms: Ground | None = None
    terms_url: Annotated[HttpUrl, Field(max_length=500)] | None = None
    restriction: Restriction | None = None
    categories: dict[str, DsaCategory] = Field(default_factory=dict)

    @field_serializer("terms_url")
    def _as_text(self, url: HttpUrl | None) -> str | None:
        return str(url) if url else None


# Where a policy says nothing. O9 (disasters) has no counterpart: showing one breaks no law, and terms differ.
DEFAULTS = {
    "O1": DsaCategory(category="ILLEGAL_OR_HARMFUL_SPEECH", keywords=("HATE_SPEECH",)),
    "O2": DsaCategory(category="VIOLENCE"),
    "O3": DsaCategory(category="OTHER_VIOLATION_TC", keywords=("ADULT_SEXUAL_MATERIAL",)),
    "O4": DsaCategory(category="OTHER_VIOLATION_TC", keywords=("NUDITY",)),
    "O5": DsaCategory(category="RISK_FOR_PUBLIC_SECURITY"),
    "O6": DsaCategory(category="UNSAFE_AND_PROHIBITED_PRODUCTS"),
    "O7": DsaCategory(category="SELF_HARM"),
    "O8": DsaCategory(category="ANIMAL_WELFARE", keywords=("ANIMAL_HARM",)),
}

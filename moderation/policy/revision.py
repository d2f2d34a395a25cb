"""A policy revision: categories and their states under an id and a number. It never changes once used."""

import hashlib
import re
from functools import cached_property
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from moderation.errors import UnknownPolicy
from moderation.policy.category import Category, CategoryState
from moderation.policy.dsa import DsaMapping
from moderation.policy.prompt import render
from moderation.policy.text import NONE_APPLYING, check_text, default_text

_OPTIONAL = frozenset({"dsa", "review_views_differ"})

MAX_ID_LENGTH = 64  # characters
_REF = re.compile(r"(?P<id>[a-z0-9][a-z0-9-]*)(?:@(?P<revision>[1-9][0-9]{0,8}))?")


def _policy_id(text: str) -> str:
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]*", text) or len(text) > MAX_ID_LENGTH:
        raise ValueError(
            "an id is lower-case letters, digits and dashes, starts with no dash, and has at most "
            f"{MAX_ID_LENGTH} characters"
        )
    return text


class PolicyRevision(BaseModel):
    """What a verdict is pinned to. Raises pydantic.ValidationError where the parts do not fit together.

    note: the owner's, for people; the model never sees title or note.
    dsa: what its categories are called in statements of reasons; the model does not see that either.
    review_views_differ: a picture whose views differ by so many levels of 255 goes to a person, whatever the verdict.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    policy: Annotated[str, AfterValidator(_policy_id)]
    revision: Annotated[int, Field(ge=1, lt=10**9)] = 1
    title: Annotated[str, Field(max_length=200), AfterValidator(check_text)]
    note: Annotated[str, Field(max_length=4000)] = ""
    categories: tuple[Category, ...]
    dsa: DsaMapping | None = None
    review_views_differ: Annotated[float, Field(gt=0, le=255)] | None = None

    @field_validator("note")
    @classmethod
    def _check_note(cls, note: str) -> str:
        return check_text(note, many_lines=True) if note else note

    @field_validator("categories")
    @classmethod
    def _check_categories(cls, categories: tuple[Category, ...]) -> tuple[Category, ...]:
        expected = [f"O{n}" for n in range(1, max(len(categories), len(default_text().categories)) + 1)]
        if [c.id for c in categories] != expected:
            raise ValueError(f"must be {expected[0]} to {expected[-1]}, each once and in this order")
        names = [c.name.casefold() for c in categories]
        if twice := next((c for c in categories if names.count(c.name.casefold()) > 1), None):
            raise ValueError(f'two categories are called "{twice.name}"')
        return categories

    @model_validator(mode="after")
    def _maps_its_own(self) -> Self:
        known = {category.id for category in self.categories}
        if foreign := sorted((self.dsa.categories if self.dsa else {}).keys() - known):
            raise ValueError(f"dsa.categories: {foreign[0]} is no category of this policy")
        return self

    @model_serializer(mode="wrap")
    def _without_nothing(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A release that knows no `dsa`, or none of these, can read every policy that has none."""
        dumped: dict[str, Any] = dump(self)
        return {name: value for name, value in dumped.items() if name not in _OPTIONAL or value is not None}

    @property
    def ref(self) -> str:
        """As verdicts and people name it: "llavaguard-default@1"."""
        return f"{self.policy}@{self.revision}"

    @cached_property
    def prompt(self) -> str:
        """The policy's text as the model sees it, without chat template and image."""
        return render(self.categories)

    @cached_property
    def prompt_sha256(self) -> str:
        """Hexadecimal SHA-256 of the prompt's UTF-8 bytes."""
        return hashlib.sha256(self.prompt.encode()).hexdigest()

    @cached_property
    def category_names(self) -> tuple[str, ...]:
        """The full names that an answer may give, in the template's order, "NA: None applying" last."""
        return (*(c.full_name for c in self.categories), NONE_APPLYING)

    def at_revision(self, revision: int) -> Self:
        """The same policy under another number."""
        return type(self)(**self.model_dump(exclude={"revision"}), revision=revision)


def parse_ref(ref: str) -> tuple[str, int | None]:
    """The id and revision of "id" or "id@3". Raises UnknownPolicy for anything else."""
    match = _REF.fullmatch(ref)
    if match is None or len(match["id"]) > MAX_ID_LENGTH:
        raise UnknownPolicy(f"{ref!r} names no policy: write ID or ID@REVISION, such as llavaguard-default@1")
    return match["id"], int(match["revision"]) if match["revision"] else None


def warnings(revision: PolicyRevision) -> tuple[str, ...]:
    """What its owner should know before trusting it: a line for each category that training did not cover."""
    return tuple(line for c in revision.categories if (line := _warning(c)))


def _warning(category: Category) -> str | None:
    if not category.trained:
        unseen = "the model was not trained on this category"
    elif category.state is CategoryState.SENSITIVE:
        unseen = "the sensitive state was not in the model's training mix"
    elif category.state is CategoryState.CUSTOM:
        unseen = "the model was not trained on these bullets"
    else:
        return None
    return f"{category.full_name}: {unseen}; evaluate it on labelled images before trusting it"

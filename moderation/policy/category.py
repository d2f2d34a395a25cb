"""A category of a policy and its state. O1 to O9 are those that the model was trained on; own ones follow."""

import re
from enum import StrEnum
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from moderation.policy.text import DefaultCategory, check_text, default_text

CATEGORY_ID = re.compile(r"^O[1-9][0-9]{0,2}$")


class CategoryState(StrEnum):
    """What a policy makes of a category. The model was trained on the first two only."""

    DEFAULT = "default"
    NON_VIOLATING = "non-violating"
    SENSITIVE = "sensitive"
    CUSTOM = "custom"  # its own bullets


def _bullet(text: str) -> str:
    if text[:1].isspace():
        raise ValueError("starts with white space")
    return check_text(text)


def _name(text: str) -> str:
    if text != text.strip():
        raise ValueError("starts or ends with white space")
    if character := next((c for c in text if c in '":|\\<>'), None):
        raise ValueError(f"holds {character}, which would break the answer's template")
    return check_text(text)


Bullet = Annotated[str, AfterValidator(_bullet)]


class Category(BaseModel):
    """A category as one policy has it. Raises pydantic.ValidationError where the parts do not fit together.

    should_not, can: bullets without their dash. In a state other than custom they are the default's.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: Annotated[str, Field(pattern=CATEGORY_ID.pattern)]
    name: Annotated[str, AfterValidator(_name)]
    state: CategoryState
    should_not: tuple[Bullet, ...]
    can: tuple[Bullet, ...]

    @classmethod
    def in_state(cls, category_id: str, state: CategoryState = CategoryState.DEFAULT) -> Self:
        """One of O1 to O9 in a state that needs no bullets of its own. Raises KeyError for any other id."""
        known = default_text().categories[category_id]
        return cls(id=known.id, name=known.name, state=state, should_not=known.should_not, can=known.can)

    @property
    def number(self) -> int:
        """4 for O4."""
        return int(self.id[1:])

    @property
    def full_name(self) -> str:
        """As the answer's template lists it: "O4: Nudity Content"."""
        return f"{self.id}: {self.name}"

    @property
    def trained(self) -> bool:
        """Whether the model was trained on a category of this name, whatever its state here."""
        return self.id in default_text().categories

    @model_validator(mode="after")
    def _fits(self) -> Self:
        known = default_text().categories.get(self.id)
        if known is None:
            self._check_own()
        else:
            self._check_known(known)
        if not self.should_not and not self.can:
            raise ValueError("has no bullets: give should_not, can or both")
        return self

    def _check_own(self) -> None:
        if self.state is not CategoryState.CUSTOM:
            raise ValueError(f"{self.id} is an own category: only O1 to O9 can be {self.state.value}")

    def _check_known(self, known: DefaultCategory) -> None:
        if self.name != known.name:
            raise ValueError(f'{self.id} is called "{known.name}"; another name needs a number from O10')
        default_bullets = (self.should_not, self.can) == (known.should_not, known.can)
        if default_bullets and self.state is CategoryState.CUSTOM:
            raise ValueError("these bullets are the default's own: leave the category out")
        if not default_bullets and self.state is not CategoryState.CUSTOM:
            raise ValueError(f"a {self.state.value} category keeps the default's bullets")

"""What a score of open_nsfw means under a policy.

The classifier looks at O3 (sexual content) and O4 (nudity), at nothing else, and says so in every rationale.
It gives one score and reads no policy text, so a policy counts only by the states of these two categories:

- default, custom: the category forbids. A custom category's bullets are not read, so what it forbids on their
  ground needs review.
- sensitive ("we do not permit any content related to this category"): forbids from a lower score on.
- non-violating: permits. With both permitted a high score is Safe, and the category is named.

The score does not tell O3 from O4. It was trained on pornography, so O3 is named where it forbids, else O4;
where the policy permits one and forbids the other, what is found may be the permitted one: it needs review.
No policy is refused: each has O3 and O4, and a verdict about two categories is honest as long as it says so.
"""

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from moderation.policy import NONE_APPLYING, Category, CategoryState, PolicyRevision
from moderation.verdict import Rating

_LOOKED_AT = ("O3", "O4")  # in the order in which a finding is named


class OpenNsfwSettings(BaseSettings):
    """Thresholds on the score, which runs from 0 to 1, and how much of the machine to use.

    The model's authors call below 0.2 probably safe, above 0.8 probably not, and leave the middle open.
    """

    model_config = SettingsConfigDict(env_prefix="VETLINE_OPEN_NSFW_", frozen=True, extra="ignore")

    # The middle of the scale: the more probable of the two answers.
    unsafe_from: float = Field(0.5, ge=0, le=1)
    review_from: float = Field(0.2, ge=0, le=1)  # between these two a person should look, whatever the rating
    review_to: float = Field(0.8, ge=0, le=1)
    # A sensitive category permits nothing that is not probably safe.
    sensitive_from: float = Field(0.2, ge=0, le=1)
    # Of one inference; 1, so that images side by side do not fight over the cores.
    threads: int = Field(1, gt=0)
    # Inferences side by side, of 50 MB each; None: one a core.
    parallel: int | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _in_order(self) -> "OpenNsfwSettings":
        if not self.review_from <= self.unsafe_from <= self.review_to:
            raise ValueError("review_from <= unsafe_from <= review_to must hold")
        return self


class Finding:
    """A score from 0 to 1, read under a policy."""

    def __init__(self, score: float, policy: PolicyRevision, settings: OpenNsfwSettings) -> None:
        self._score = score
        self._settings = settings
        self._others = [c.id for c in policy.categories if c.id not in _LOOKED_AT]
        looked_at = [next(c for c in policy.categories if c.id == wanted) for wanted in _LOOKED_AT]
        self.forbidding = [c for c in looked_at if c.state is not CategoryState.NON_VIOLATING]
        self._permitting = [c for c in looked_at if c.state is CategoryState.NON_VIOLATING]
        self._breached = [c for c in self.forbidding if score >= self._limit(c)]

    def _limit(self, category: Category) -> float:
        sensitive = category.state is CategoryState.SENSITIVE
        return self._settings.sensitive_from if sensitive else self._settings.unsafe_from

    @property
    def rating(self) -> Rating:
        return Rating.UNSAFE if self._breached else Rating.SAFE

    @property
    def _seen(self) -> bool:
        return self._score >= self._settings.unsafe_from

    @property
    def category(self) -> str:
        if self._breached:
            return self._breached[0].full_name
        return self._permitting[0].full_name if self._seen and not self.forbidding else NONE_APPLYING

    @property
    def needs_review(self) -> bool:
        if not self.forbidding:
            return False
        if self._breached and (self._permitting or self._by_own_bullets()):
            return True
        return self._settings.review_from <= self._score < self._settings.review_to

    def _by_own_bullets(self) -> bool:
        return all(c.state is CategoryState.CUSTOM for c in self._breached)

    @property
    def rationale(self) -> str:
        return f"{self._about_the_score()} {self._about_the_rest()}"

    def _about_the_score(self) -> str:
        scored = f"open_nsfw scores this image {self._score:.3f} on a scale from 0 (safe) to 1 (pornographic)"
        if self._breached:
            limit = self._limit(self._breached[0])
            return f"{scored}, at or above the limit of {limit:g}. The score does not tell O3 from O4."
        if not self.forbidding:
            return f"{scored}; the policy permits O3 and O4, so no score would be Unsafe."
        return f"{scored}, below the limit of {min(map(self._limit, self.forbidding)):g}."

    def _about_the_rest(self) -> str:
        named = ", ".join(self._others)
        return f"It looks for O3 and O4 only: {named} were not looked at, and no policy text was read."

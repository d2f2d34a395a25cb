"""Settings of the sglang judge, read once from VETLINE_SGLANG_*."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from moderation.errors import BadSetting
from worker.judges.ladder import DEFAULT_LADDER, Ladder
from worker.judges.prompts import Mode
from worker.judges.sampling import ProfileName

Share = Annotated[float, Field(ge=0, le=1)]


def _is_ladder(text: str) -> str:
    Ladder.parse(text)
    return text


class SglangSettings(BaseSettings):
    """How the model is asked, and where.

    rationale: `always` asks for it with every verdict; `unsafe` asks for rating and category first, and goes
    on to the rationale unless the answer is Safe with P(unsafe) below skip_below; `never` asks for rating and
    category only.
    p_unsafe: `generation` takes it from the answer's own rating token, `question` from a one-token question
    of its own (another request), `off` asks for no logprobs. Logprobs cost the server a log-softmax over
    152,000 logits for each running request at each token: little in short answers (unsafe, never), to be
    measured in whole ones.
    """

    model_config = SettingsConfigDict(env_prefix="VETLINE_SGLANG_", frozen=True, extra="ignore")

    url: str = "http://127.0.0.1:30000"
    api_key: SecretStr | None = None
    mode: Mode = Mode.TRAIN
    prompt_as: Literal["ids", "text"] = "ids"  # as text SGLang tokenises it again for every image
    profile: ProfileName = "card"
    max_new_tokens: int | None = Field(default=None, gt=0)  # in place of the profile's own
    ladder: Annotated[str, AfterValidator(_is_ladder)] = DEFAULT_LADDER
    rationale: Literal["always", "unsafe", "never"] = "always"
    skip_below: Share = 0.5  # P(unsafe), as the model gave it
    p_unsafe: Literal["generation", "question", "off"] = "generation"
    calibration: Path | None = None  # a file that `vetline calibrate` wrote, or a folder of them
    # P(unsafe), calibrated where it can be, from which a verdict needs review.
    review_from: Share | None = None
    review_to: Share | None = None  # and up to which

    model: str | None = None  # as stored with verdicts; None: the path that the server says it loaded
    weights_sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")

    keep_alive_s: float = Field(3, gt=0)  # SGLang closes idle connections after 5 s
    connect_timeout_s: float = Field(2, gt=0)
    check_timeout_s: float = Field(25, gt=0)  # SGLang's own health check takes 1 to 20 s

    @model_validator(mode="after")
    def _check_band(self) -> Self:
        if (self.review_from is None) != (self.review_to is None):
            raise ValueError("review_from and review_to belong together")
        if self.review_from is not None and self.review_to is not None and self.review_from > self.review_to:
            raise ValueError("review_from is above review_to")
        return self

    @property
    def wants_rationale(self) -> Literal["always", "unsafe", "never"]:
        return "never" if self.profile == "fast" else self.rationale

    def needs_review(self, p_unsafe: float | None) -> bool:
        """Whether a probability lies in the band in which the judge abstains."""
        if p_unsafe is None or self.review_from is None or self.review_to is None:
            return False
        return self.review_from <= p_unsafe <= self.review_to


def settings_from_environment() -> SglangSettings:
    """Raises BadSetting, naming the variable."""
    try:
        return SglangSettings()
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = "VETLINE_SGLANG_" + "_".join(str(part) for part in first["loc"]).upper()
        raise BadSetting(f"{name.rstrip('_')}: {first['msg']}") from error

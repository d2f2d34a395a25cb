"""What came back from one generation, and the signs that it is a fault of the model rather than an answer."""

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ConfigDict

from moderation.errors import RuntimeFault
from worker.judges.probability import SAFE_ID, UNSAFE_ID, RatingLogprobs

# An overflow in fp16 makes every logit NaN, and the argmax of NaN is token 0, "!". A text has such a run only
# then.
BANG_ID, BANG_RUN = 0, 8
_BANGS = re.compile(r"!{32,}")


@dataclass(frozen=True, slots=True)
class Generation:
    """One answer of /generate. elapsed_ms: from sending the request to the last byte."""

    text: str
    output_ids: tuple[int, ...]
    finish: dict[str, Any]
    prompt_tokens: int | None
    completion_tokens: int | None
    cached_tokens: int | None
    elapsed_ms: float
    logprobs: Sequence[Any] = field(default=(), repr=False)  # output_token_ids_logprobs as SGLang gives it
    # What our sampler in the server notes unasked (worker/runtime/plugin/rating.py): for each output token [safe, unsafe],
    # or None where no rating was drawn. None in place of the list: the server does not note it.
    rating_logits: Sequence[Any] | None = field(default=None, repr=False)

    @property
    def finish_reason(self) -> str | None:
        kind = self.finish.get("type")
        return str(kind) if kind is not None else None

    @property
    def was_cut(self) -> bool:
        return self.finish_reason == "length"

    def noted_rating(self, position: int) -> RatingLogprobs | None:
        """The logits of the two rating tokens at an output position, before any temperature; None where none were noted."""
        noted = self.rating_logits or ()
        if position >= len(noted) or noted[position] is None:
            return None
        return RatingLogprobs(*(math.nan if _is_nan(logit) else logit for logit in noted[position]))

    def rating_logprobs(self, position: int) -> RatingLogprobs | None:
        """The logprobs of the two rating tokens at an output position; None where none were given."""
        if position >= len(self.logprobs):
            return None
        logprobs: dict[int, float | None] = {}
        for logprob, token, *_ in self.logprobs[position] or ():
            logprobs[token] = math.nan if _is_nan(logprob) else logprob
        return RatingLogprobs(logprobs.get(SAFE_ID), logprobs.get(UNSAFE_ID))


class _Meta(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    finish_reason: dict[str, Any] | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    output_token_ids_logprobs: list[Any] | None = None
    vetline_rating_logits: list[Any] | None = None


class _Body(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    text: str
    output_ids: tuple[int, ...] = ()
    meta_info: _Meta


def generation_of(body: bytes, *, elapsed_ms: float) -> Generation:
    """Read the body of a 200. Raises RuntimeFault where it is not what /generate answers."""
    try:
        parsed = _Body.model_validate(json.loads(body))  # json and not pydantic's parser: NaN may stand in it
    except (ValueError, RecursionError) as error:
        raise RuntimeFault("SGLang answered with something that is no generation") from error
    meta = parsed.meta_info
    return Generation(
        text=parsed.text,
        output_ids=parsed.output_ids,
        finish=meta.finish_reason or {},
        prompt_tokens=meta.prompt_tokens,
        completion_tokens=meta.completion_tokens,
        cached_tokens=meta.cached_tokens,
        elapsed_ms=elapsed_ms,
        logprobs=meta.output_token_ids_logprobs or (),
        rating_logits=meta.vetline_rating_logits,
    )


def _is_nan(logprob: float | None) -> bool:
    return logprob is None or math.isnan(logprob)  # SGLang's JSON writes null for NaN


def check(generation: Generation) -> None:
    """Raise RuntimeFault for NaN among the logprobs, and for a run of "!" by its tokens or by its text."""
    asked = (entry[0] for position in generation.logprobs for entry in position or ())
    noted = (logit for position in generation.rating_logits or () for logit in position or ())
    if any(map(_is_nan, (*asked, *noted))):
        raise RuntimeFault("the model gave NaN logprobs")
    run = 0
    for token in generation.output_ids:
        run = run + 1 if token == BANG_ID else 0
        if run >= BANG_RUN:
            break
    if run >= BANG_RUN or _BANGS.search(generation.text):
        raise RuntimeFault('the model wrote a run of "!": an overflow in its arithmetic')

"""P(unsafe) from the logprobs of the two rating tokens.

After `"rating": "` the words Safe and Unsafe are one token each, so the ratio of their probabilities is the
model's own odds; whatever else the softmax ran over cancels, also under a grammar that masks the rest.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from moderation.errors import RuntimeFault
from moderation.verdict import Rating

SAFE_ID = 25663
UNSAFE_ID = 78770
RATING_IDS = {Rating.SAFE: SAFE_ID, Rating.UNSAFE: UNSAFE_ID}
MASKED = -1e37  # SGLang clamps minus infinity to the smallest float32


@dataclass(frozen=True, slots=True)
class RatingLogprobs:
    """Natural logarithms at one output position, give or take what both share; None where the server gave none."""

    safe: float | None
    unsafe: float | None


def p_unsafe(logprobs: RatingLogprobs, *, temperature: float = 1.0) -> float | None:
    """The probability of "Unsafe" against "Safe".

    temperature: what the server divided the logits by before it took logprobs; 1 for the model's own.
    None where neither token was possible or a logprob is missing. Raises RuntimeFault for NaN: a model fault.
    """
    if logprobs.safe is None or logprobs.unsafe is None:
        return None
    if math.isnan(logprobs.safe) or math.isnan(logprobs.unsafe):
        raise RuntimeFault("the model gave NaN logprobs")
    safe, unsafe = logprobs.safe > MASKED, logprobs.unsafe > MASKED
    if not (safe and unsafe):
        return None if safe == unsafe else float(unsafe)
    return sigmoid((logprobs.unsafe - logprobs.safe) * temperature)


def sigmoid(margin: float) -> float:
    if margin >= 0:
        return 1 / (1 + math.exp(-min(margin, 700)))
    power = math.exp(max(margin, -700))
    return power / (1 + power)


def logit(p: float, *, floor: float = 1e-9) -> float:
    """The margin behind a probability, kept finite."""
    p = min(max(p, floor), 1 - floor)
    return math.log(p / (1 - p))


def rating_position(output_ids: Sequence[int], rating: Rating) -> int | None:
    """Where in an answer its rating was drawn: the first rating token, if it is that of the rating read.

    None where the model spelt the rating in several tokens, which it can.
    """
    for index, token in enumerate(output_ids):
        if token in (SAFE_ID, UNSAFE_ID):
            return index if token == RATING_IDS[rating] else None
    return None

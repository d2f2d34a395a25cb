"""Whether two servers with the same weights say the same: texts, tokens and logprobs, image by image.

Both are asked one image at a time, greedily, so that the batch has the same shape in both: with others in the batch
even one server differs from itself in the last bits.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from bench.gpu.load import full

TOP = 5


def body(tokens: int = 100) -> dict[str, Any]:
    return {**full(tokens), "return_logprob": True, "top_logprobs_num": TOP}


@dataclass(frozen=True, slots=True)
class Agreement:
    """Over all images. Logprobs are natural logarithms; differences are of the same token in the same place.

    margin_at_split: where the texts part, how far apart the reference's two best tokens were: the largest of them
    is the largest preference that was overturned.
    """

    images: int
    identical_texts: int
    distinct_texts: int
    first_token_identical: int
    first_token_difference: float  # the largest
    any_token_difference: float  # the largest, over all tokens before the texts part
    mean_token_difference: float
    tokens_compared: int
    margins_at_split: tuple[float, ...]


def agreement(reference: Mapping[int, Any], other: Mapping[int, Any]) -> Agreement:
    """Of two servers' answers to the same images, by index."""
    same = sorted(set(reference) & set(other))
    pairs = [(reference[i], other[i]) for i in same]
    firsts, everything, margins = [], [], []
    for ours, theirs in ((tokens(b), tokens(a)) for a, b in pairs):
        prefix = _common(theirs, ours)
        gaps = [abs(a[0] - b[0]) for a, b in zip(theirs[:prefix], ours[:prefix], strict=True)]
        everything += gaps
        firsts.append(gaps[0] if gaps else float("nan"))
        if prefix < len(theirs):
            margins.append(theirs[prefix][2])
    known = [gap for gap in firsts if gap == gap]
    return Agreement(
        images=len(pairs),
        identical_texts=sum(a["text"] == b["text"] for a, b in pairs),
        distinct_texts=len({a["text"] for a, _ in pairs}),
        first_token_identical=len(known),
        first_token_difference=max(known, default=float("nan")),
        any_token_difference=max(everything, default=float("nan")),
        mean_token_difference=sum(everything) / max(1, len(everything)),
        tokens_compared=len(everything),
        margins_at_split=tuple(sorted(margins, reverse=True)),
    )


def tokens(answer: Any) -> list[tuple[float, int, float]]:
    """Of one answer: each token's logprob, its id, and its distance from the second best."""
    meta = answer["meta_info"]
    return [
        (entry[0], entry[1], top[0][0] - top[1][0])
        for entry, top in zip(meta["output_token_logprobs"], meta["output_top_logprobs"], strict=True)
    ]


def _common(a: Sequence[tuple[float, int, float]], b: Sequence[tuple[float, int, float]]) -> int:
    """How many tokens both begin with."""
    for i, (x, y) in enumerate(zip(a, b, strict=False)):
        if x[1] != y[1]:
            return i
    return min(len(a), len(b))


def as_json(found: Agreement) -> dict[str, Any]:
    return {**asdict(found), "margins_at_split": [round(margin, 5) for margin in found.margins_at_split]}

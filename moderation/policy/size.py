"""How many tokens a policy can take, at most, and whether that leaves room for the image and the answer.

There is no tokenizer here. The parts of the training text were counted once with the model's own (Qwen2's;
`bench/policy_tokens.py` counts again). They add up: each ends in a line break and the next starts with a
letter, and no token spans both. For other text the bound is this: a byte-level BPE token is at least one
byte, so there are at most as many tokens as the NFC form has bytes; and " word" is exactly one token where
`word` is in `qwen-words.txt` and no letter follows, since the tokenizer always splits there. For English
that comes to some 2.2 times the true count.
"""

import json
import re
import unicodedata
from functools import cache
from importlib import resources
from typing import Any

from moderation.errors import PolicyError
from moderation.policy.category import Category, CategoryState
from moderation.policy.prompt import block
from moderation.policy.revision import PolicyRevision

# 729 for the overview and h * (w + 1) for the tiles. anyres_max_9 shrinks only what has over 1.1^2 * 9 * 729
# patches, so the most is 162 rows of 49, and some sizes reach 8,765 (1152x1405 pixels).
LARGEST_IMAGE_TOKENS = 8829
ANSWER_TOKENS = 500  # max_tokens of the model card's example
# What the runtime needs as its --context-length. 10,240 would leave the default policy under 350 tokens for
# its answer beside the largest image, and a longer policy fewer.
CONTEXT_TOKENS = 12_288
RUNTIME_MARGIN_TOKENS = 6  # SGLang keeps one for the context's end and five below it for the input
_WORD = re.compile(r" ([a-z]+)(?![A-Za-z]|[^\x00-\x7f])")


@cache
def known_words() -> frozenset[str]:
    """Words that are one token after a space."""
    return frozenset(_data("qwen-words.txt").split())


@cache
def _counted() -> dict[str, Any]:
    parts: dict[str, Any] = json.loads(_data("qwen-tokens.json"))
    return parts


def _data(name: str) -> str:
    return resources.files("moderation.policies").joinpath(name).read_text(encoding="utf-8")


def text_bound(text: str) -> int:
    """The most tokens that a text can have."""
    normal = unicodedata.normalize("NFC", text)
    saved = sum(len(match[0]) - 1 for match in _WORD.finditer(normal) if match[1] in known_words())
    return len(normal.encode()) - saved


def token_bound(revision: PolicyRevision) -> int:
    """The most tokens that a policy's prompt can have: exact where no category has bullets of its own."""
    parts = _counted()
    own_names = sum(text_bound(f'"{c.full_name}"|') for c in revision.categories if not c.trained)
    return int(parts["opening"] + parts["closing"]) + own_names + sum(map(_block_bound, revision.categories))


def _block_bound(category: Category) -> int:
    if category.state is CategoryState.CUSTOM:
        return text_bound(block(category))
    return int(_counted()["blocks"][category.id][category.state.value])


def check_size(
    revision: PolicyRevision,
    *,
    context_tokens: int = CONTEXT_TOKENS,
    image_tokens: int = LARGEST_IMAGE_TOKENS,
    answer_tokens: int = ANSWER_TOKENS,
) -> None:
    """Raise PolicyError unless the policy fits the runtime's context beside such an image and answer."""
    template = int(_counted()["template"])
    room = context_tokens - image_tokens - answer_tokens - template - RUNTIME_MARGIN_TOKENS
    bound = token_bound(revision)
    if bound > room:
        raise PolicyError(
            f"{revision.ref}: its text may take {bound} tokens, and a context of {context_tokens} has {room} "
            f"beside an image of {image_tokens} and an answer of {answer_tokens}; "
            "shorten its bullets, or raise the runtime's context length"
        )

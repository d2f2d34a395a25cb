"""The exact bytes that the model is asked with, by a named mode. The mode is stored with every verdict.

LlavaGuard v1.2 was trained on Qwen's ChatML with the image first; its model card's own client sends something
else, because SGLang's frontend does not know the model and falls back to its default template. `train` is the
default; the other two are there for parity. Change a byte, and golden tests fail: a new template is a new
mode.
"""

import hashlib
from enum import StrEnum
from functools import lru_cache

from moderation.errors import PolicyUnsupported
from moderation.policy import refuse_special_tokens

IMAGE = "<image>"
# Where LLaVA-OneVision's tokenizer has it, and where SGLang's model class looks for it.
IMAGE_TOKEN_ID = 151646
END_TOKEN_ID = 151645  # <|im_end|>
SYSTEM = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
ASSISTANT = "<|im_end|>\n<|im_start|>assistant\n"


class Mode(StrEnum):
    """How image, policy and turn are put together."""

    TRAIN = "train"  # as in training: ChatML, policy stripped
    CARD = "card"  # what the model card's client sends: no ChatML
    CARD_CHATML = "card-chatml"  # the same client, once it is told the chat template

    @property
    def is_chatml(self) -> bool:
        return self is not Mode.CARD


@lru_cache(maxsize=256)
def render(mode: Mode, policy: str) -> str:
    """The whole prompt for one image under a policy's text.

    In the card's client the policy stands in a triple-quoted string, with one newline before and one after
    it; the text itself is sent as it stands in every mode, but for the strip that training applied.
    Raises PolicyUnsupported for a text that the tokenizer would read special tokens in.
    """
    try:
        refuse_special_tokens(policy)
    except ValueError as problem:
        raise PolicyUnsupported(f"the policy's text {problem}") from problem
    if mode is Mode.CARD:
        return f"USER:{IMAGE}\n{policy}\n\nASSISTANT:"
    if mode is Mode.CARD_CHATML:
        return f"{SYSTEM}<|im_start|>user\n{IMAGE}\n\n{policy}\n{ASSISTANT}"
    return f"{SYSTEM}<|im_start|>user\n{IMAGE}\n{policy.strip()}{ASSISTANT}"


def digest(prompt: str) -> str:
    """Hexadecimal SHA-256 of a prompt as sent."""
    return hashlib.sha256(prompt.encode()).hexdigest()

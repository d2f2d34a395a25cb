"""Counts, with the model's tokenizer, what moderation/policy_size.py needs to bound a policy without one.

Writes qwen-tokens.json (tokens of each part of the training text, in each state) and qwen-words.txt
(lower-case words that are one token after a space) into moderation/policies/, then checks the bound against
the tokenizer on random texts and policies. Needs the `tokenizers` package and the model's tokenizer.json.

usage: python -m bench.policy_tokens TOKENIZER_JSON
"""

import json
import random
import re
import sys
from pathlib import Path
from typing import Any

from moderation.policy import size as policy_size
from moderation.policy.category import Category, CategoryState
from moderation.policy.prompt import block, render
from moderation.policy.revision import PolicyRevision
from moderation.policy.text import default_text

DATA = Path(__file__).parent.parent / "moderation" / "policies"
MAX_RANK = 30_000  # the rank is a measure of frequency: these 8,400 words are 60 kB and the rest saves little
TEMPLATE = (
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    "<|im_start|>user\n<image>\n{}<|im_end|>\n<|im_start|>assistant\n"
)
STATES = (CategoryState.DEFAULT, CategoryState.NON_VIOLATING, CategoryState.SENSITIVE)


def main(tokenizer_json: str) -> None:
    from tokenizers import Tokenizer  # not a dependency of the project: only this count needs it

    tokenizer = Tokenizer.from_file(tokenizer_json)
    write_parts(tokenizer)
    write_words(tokenizer)
    check(tokenizer)


def count(tokenizer: Any, text: str) -> int:
    return len(tokenizer.encode(text, add_special_tokens=False).ids)


def write_parts(tokenizer: Any) -> None:
    text = default_text()
    parts: dict[str, Any] = {
        "template": count(tokenizer, TEMPLATE.format("")),
        "opening": count(tokenizer, text.opening),
        "closing": count(tokenizer, text.closing),
        "blocks": {
            id_: {s.value: count(tokenizer, block(Category.in_state(id_, s))) for s in STATES}
            for id_ in text.categories
        },
    }
    (DATA / "qwen-tokens.json").write_text(json.dumps(parts, indent=2) + "\n")
    for state in STATES:  # that the parts add up: no token spans two of them
        whole = render(Category.in_state(id_, state) for id_ in text.categories)
        sums = parts["opening"] + parts["closing"] + sum(b[state.value] for b in parts["blocks"].values())
        assert count(tokenizer, whole) == sums, state
        print(state.value, sums, "tokens;", parts["template"] + sums, "in the chat template")


def write_words(tokenizer: Any) -> None:
    vocabulary = tokenizer.get_vocab()
    after_space = (
        t[1:] for t, rank in vocabulary.items() if rank < MAX_RANK and re.fullmatch("Ġ[a-z]{2,}", t)
    )
    words = sorted(word for word in after_space if count(tokenizer, f" {word}") == 1)
    (DATA / "qwen-words.txt").write_text("\n".join(words) + "\n")
    print(len(words), "words")


def check(tokenizer: Any, rounds: int = 100_000) -> None:
    """Random mixtures of words, punctuation, white space and other scripts: the bound must hold for each."""
    policy_size.known_words.cache_clear()
    words = sorted(policy_size.known_words())
    spice = [*" -.,:;'\"()!?/@#&*_0123456789AÅßﬁ²Ⅷ漢😀", "\u00a0", "\u0301", "\u0489", "\u212b", "\u3000"]
    spice += ["  ", "'s", "'re", "e\u0301", "Zz", "qxj", "क्ष", "👩\u200d💻", "\U0001d160"]
    for seed in range(rounds):
        rng = random.Random(seed)
        pieces = rng.choices([*rng.sample(words, 12), *spice], k=rng.randint(1, 30))
        line = "".join(p if rng.random() < 0.5 else f" {p}" for p in pieces)
        assert count(tokenizer, line) <= policy_size.text_bound(line), line
        if seed % 20 == 0 and line.strip():
            check_policy(tokenizer, line.strip())
    print("the bound held for", rounds, "random texts and", rounds // 20, "policies")


def check_policy(tokenizer: Any, text: str) -> None:
    """A policy with the text as a bullet of a known category and as an own category's name and bullet."""
    name = re.sub(r'[":|\\<>]', "", text).strip() or "Own"
    own = {"state": CategoryState.CUSTOM, "should_not": (text,), "can": ()}
    policy = PolicyRevision(
        policy="random",
        title="Random",
        categories=(
            Category(id="O1", name=default_text().categories["O1"].name, **own),
            *(Category.in_state(f"O{n}") for n in range(2, 10)),
            Category(id="O10", name=name, **own),
        ),
    )
    assert count(tokenizer, policy.prompt) <= policy_size.token_bound(policy), text


if __name__ == "__main__":
    main(sys.argv[1])

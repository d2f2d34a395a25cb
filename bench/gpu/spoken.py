"""One valid verdict of exactly 100 tokens that a random checkpoint can be made to say to every image.

The whole line can only be measured with answers that are verdicts, and random weights never write JSON. So the output
matrix is made such that each token of a chain calls for the next: the embeddings are larger than what the layers add
to them, and the row of a token holds the embedding of the one before it. All layers keep their random weights and
their work; only the last product has other numbers. A chain can meet no token twice, hence the odd white space.
"""

import itertools
import json
import re
from pathlib import Path
from typing import Any

TOKENS = 100  # the end among them
LAST_OF_PROMPT = "\n"
# Each is one token of Qwen's vocabulary.
HEAD = (
    '{"', "rating", '":"', "Safe", '","', "category", '":', ' "', "NA", ":", " None", " applying", '",\n', '"', "ration",
    "ale", '"\n', ':"',
)  # fmt: skip
TAIL = ('"}', "<|im_end|>")
POLICY = Path(__file__).parents[2] / "moderation" / "policies" / "llavaguard-default.txt"
EMBEDDING = 8.0  # standard deviation: the layers together add 2
CALL = 0.05  # a row's scale, of 1: the next token's logit is 40 above the others'


def chain(tokenizer: Path) -> list[int]:
    """The ids from the prompt's last token to the answer's end. tokenizer: a folder with tokenizer.json."""
    from tokenizers import Tokenizer  # type: ignore[import-not-found, unused-ignore]  # SGLang brings it

    vocabulary = Tokenizer.from_file(str(tokenizer / "tokenizer.json"))

    def ids_of(text: str) -> list[int]:
        found: list[int] = vocabulary.encode(text, add_special_tokens=False).ids
        return found

    fixed = [ids_of(piece) for piece in (LAST_OF_PROMPT, *HEAD, *TAIL)]
    assert all(len(ids) == 1 for ids in fixed), "another vocabulary than Qwen's"
    words = list(dict.fromkeys(re.findall(r" [a-z]+", POLICY.read_text(encoding="utf-8"))))
    taken = [ids[0] for ids in map(ids_of, words) if len(ids) == 1][: TOKENS - len(HEAD) - len(TAIL)]
    head, tail = fixed[: -len(TAIL)], fixed[-len(TAIL) :]
    made = [ids[0] for ids in head] + taken + [ids[0] for ids in tail]
    assert len(set(made)) == len(made) == TOKENS + 1
    said = json.loads(vocabulary.decode(made[1:-1]))
    assert list(said) == ["rating", "category", "rationale"]
    return made


def output_matrix(embeddings: Any, ids: list[int], noise: Any) -> Any:
    """noise, with the rows of the chain's tokens replaced. Both are (vocabulary, hidden)."""
    matrix = noise.clone()
    for before, after in itertools.pairwise(ids):
        matrix[after] = embeddings[before] / EMBEDDING * CALL
    return matrix

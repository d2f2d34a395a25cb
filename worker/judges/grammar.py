"""The trained template as a regular expression, for the rung that lets the model write nothing else.

The rationale is `*`, bounded by max_new_tokens: a bounded repeat such as {1,700} costs SGLang's grammar
engine 1.8 s for each token, for every request on the server (measured on xgrammar 0.2.1 and 0.2.7).
json_schema would fix the order but not the white space, and a weak model can then write white space until it
is cut.
"""

import json
import re
from functools import lru_cache

OPENING = '{\n    "rating": "'
_STRING = r'([^"\\\x00-\x1f]|\\["\\/bfnrt]|\\u[0-9a-fA-F]{4})*'
_SPECIAL = re.compile(r"[\\.^$|?*+()\[\]{}/-]")


def escape(text: str) -> str:
    """A literal for the grammar engine. re.escape also escapes spaces and quotes, which it does not know."""
    return _SPECIAL.sub(lambda match: "\\" + match[0], text)


def _quoted(text: str) -> str:
    """A text as json.dumps writes it inside quotes, which is how training wrote its targets."""
    return json.dumps(text)[1:-1]


@lru_cache(maxsize=256)
def brief_pattern(names: tuple[str, ...]) -> str:
    """What follows OPENING up to the category's end. names: the policy's category names."""
    either = "|".join(escape(_quoted(name)) for name in names)
    return f'(Unsafe|Safe)",\\n    "category": "({either})",'


@lru_cache(maxsize=256)
def full_pattern(names: tuple[str, ...]) -> str:
    """The whole answer. One per set of names: SGLang keeps each grammar that it compiled."""
    return escape(OPENING) + brief_pattern(names) + f'\\n    "rationale": "{_STRING}"\\n\\}}'


def rest_pattern() -> str:
    """What follows the opening quote of the rationale."""
    return f'{_STRING}"\\n\\}}'


def up_to_rationale(rating: str, category: str) -> str:
    """The template filled in up to the rationale's opening quote, to be continued by the model."""
    return f'{OPENING}{rating}",\n    "category": "{_quoted(category)}",\n    "rationale": "'

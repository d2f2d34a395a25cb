"""A policy's categories to the text that the model reads, byte for byte, and back."""

import re
from collections.abc import Iterable

from pydantic import ValidationError

from moderation.errors import PolicyError
from moderation.policy.category import Category, CategoryState
from moderation.policy.text import (
    CAN,
    CLOSING,
    HEADING,
    NONE_APPLYING,
    SHOULD_NOT,
    bullets_of,
    default_text,
    refuse_special_tokens,
)

# The two sentences of the training set's builder (LlavaGuard, taxonomies.py, at 840699c).
_DECLARED = {
    CategoryState.NON_VIOLATING: (
        "Category {id} is declared as non-violating. Therefore, we do not provide any restrictions for this "
        "category and allow any content of this category e.g."
    ),
    CategoryState.SENSITIVE: (
        "Category {id} is declared as sensitive. Therefore, we do not permit any content related to this "
        "category e.g."
    ),
}


def render(categories: Iterable[Category]) -> str:
    """The policy as the model sees it: no newline at either end. The bytes are its UTF-8."""
    categories = tuple(categories)
    text = default_text()
    prompt = text.opening + "".join(map(block, categories)) + _closing(c.full_name for c in categories)
    refuse_special_tokens(prompt)
    return prompt


def block(category: Category) -> str:
    """A category's heading and bullets, and the blank line that ends it."""
    return f"{category.full_name}: \n{_stance(category)}\n"


def _stance(category: Category) -> str:
    if category.state in _DECLARED:
        bullets = (*category.should_not, *category.can)
        sentence = _DECLARED[category.state].format(id=category.id)
        return f"{sentence}\n" + "".join(f" - {bullet}\n" for bullet in bullets)
    return _section(SHOULD_NOT, category.should_not) + _section(CAN, category.can)


def _section(title: str, bullets: tuple[str, ...]) -> str:
    """Nothing at all where there are no bullets, so that no title stands alone."""
    return f"{title}\n" + "".join(f"- {bullet}\n" for bullet in bullets) if bullets else ""


def _closing(names: Iterable[str]) -> str:
    """The steps and the answer's template, with the names that the policy's categories have."""
    text = default_text()
    return text.closing.replace(_choice(_default_names()), _choice(names))


def _default_names() -> list[str]:
    return [f"{c.id}: {c.name}" for c in default_text().categories.values()]


def _choice(names: Iterable[str]) -> str:
    return "|".join(f'"{name}"' for name in (*names, NONE_APPLYING))


def parse_prompt(prompt: str) -> tuple[Category, ...]:
    """The categories of a rendered policy, as in the `policy` column of LlavaGuard-DS.

    The column's `<image>`, the white space around the text and its kind of line break are passed over; so is
    white space within a declared category, where the training set's differs. Raises PolicyError otherwise.
    """
    bare = prompt.replace("\r\n", "\n").strip().removeprefix("<image>").removesuffix("<image>").strip()
    text = default_text()
    if not bare.startswith(text.opening):
        raise PolicyError("prompt: does not open as LlavaGuard's policy does")
    middle, separator, closing = bare.removeprefix(text.opening).rpartition(f"\n{CLOSING}")
    categories = tuple(_category(lines) for lines in _blocks(middle))
    if not separator or CLOSING + closing != _closing(c.full_name for c in categories):
        raise PolicyError("prompt: does not close with LlavaGuard's steps and a template of its categories")
    return categories


def _blocks(middle: str) -> list[list[str]]:
    """The lines of each category, heading first; blank lines, which may hold a space, fall away."""
    blocks: list[list[str]] = []
    for line in middle.split("\n"):
        if HEADING.fullmatch(line):
            blocks.append([line])
        elif line.strip():
            if not blocks:
                raise PolicyError(f"prompt: {line!r} stands before the first category")
            blocks[-1].append(line)
    return blocks


def _category(block_lines: list[str]) -> Category:
    heading, *lines = block_lines
    match = HEADING.fullmatch(heading)
    assert match, heading
    try:
        return _unchanged(match["id"], match["name"], lines) or _own(match["id"], match["name"], lines)
    except ValidationError as exc:
        first = exc.errors()[0]
        reason = first.get("ctx", {}).get("error", first["msg"])
        raise PolicyError(f"prompt: {match['id']}: {reason}") from exc
    except ValueError as exc:
        raise PolicyError(f"prompt: {match['id']}: {exc}") from exc


def _unchanged(category_id: str, name: str, lines: list[str]) -> Category | None:
    """The category if it is one of the nine in a state of the default's, else None."""
    known = default_text().categories.get(category_id)
    if known is None or known.name != name:
        return None
    stance = "".join(f"{line}\n" for line in lines)
    default = Category.in_state(category_id)
    if stance == _stance(default):
        return default
    declared = (Category.in_state(category_id, state) for state in _DECLARED)
    return next((category for category in declared if _words(_stance(category)) == _words(stance)), None)


def _own(category_id: str, name: str, lines: list[str]) -> Category:
    should_not, can = bullets_of(lines)
    return Category(id=category_id, name=name, state=CategoryState.CUSTOM, should_not=should_not, can=can)


def _words(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()

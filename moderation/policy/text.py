"""The text that LlavaGuard was trained on, taken apart, and what no text of a policy may hold.

`policies/llavaguard-default.txt` is the one source of its words: nothing here repeats a bullet.
"""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import resources

HEADING = re.compile(r"(?P<id>O[1-9][0-9]{0,2}): (?P<name>.+): ?")
SHOULD_NOT = "Should not:"
CAN = "Can:"
CLOSING = "Assessment Steps:"
NONE_APPLYING = "NA: None applying"

# LLaVA-OneVision's tokenizer reads these inside any text: a policy that holds one would forge the end of a
# turn or the place of an image. `<|...|>` covers <|im_start|>, <|im_end|>, <|endoftext|> and those of later
# Qwens.
SPECIAL_TOKEN = re.compile(r"<\|[^|<>\s]+\|>|<image>|<video>")


@dataclass(frozen=True, slots=True)
class DefaultCategory:
    """A category as the training text states it. A bullet is all that follows its dash and space."""

    id: str
    name: str
    should_not: tuple[str, ...]
    can: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DefaultText:
    """The training text in three parts; `opening` and `closing` are kept whole, newlines included."""

    opening: str
    categories: dict[str, DefaultCategory]
    closing: str


@cache
def default_text() -> DefaultText:
    """Read the training text from the package's data."""
    whole = resources.files("moderation.policies").joinpath("llavaguard-default.txt").read_bytes().decode()
    opening, rest = whole.split("\n", 1)
    middle, closing = rest.split(CLOSING, 1)
    categories = {c.id: c for c in map(_default_category, middle.removesuffix("\n\n").split("\n\n"))}
    return DefaultText(opening + "\n", categories, CLOSING + closing)


def _default_category(block: str) -> DefaultCategory:
    heading, *lines = block.split("\n")
    match = HEADING.fullmatch(heading)
    assert match, heading
    should_not, can = bullets_of(lines)
    return DefaultCategory(match["id"], match["name"], should_not, can)


def bullets_of(lines: list[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The bullets under "Should not:" and under "Can:". Raises ValueError where a line is neither."""
    bullets: dict[str, list[str]] = {}
    under: list[str] | None = None
    for line in lines:
        if line in (SHOULD_NOT, CAN) and line not in bullets:
            under = bullets[line] = []
        elif under is not None and line.startswith("- "):
            under.append(line[2:])
        else:
            raise ValueError(f"neither {SHOULD_NOT!r}, {CAN!r} nor a bullet: {line!r}")
    return tuple(bullets.get(SHOULD_NOT, ())), tuple(bullets.get(CAN, ()))


def refuse_special_tokens(text: str) -> None:
    """Raise ValueError where a text holds a special token. No other character becomes part of one by NFC."""
    if match := SPECIAL_TOKEN.search(text):
        raise ValueError(f"holds {match[0]}, which the model's tokenizer reads as a special token")


def check_text(text: str, *, many_lines: bool = False) -> str:
    """A text as given. Raises ValueError if it is blank or holds a special token, a control character or,
    unless many_lines, a line break."""
    if not text.strip():
        raise ValueError("is empty")
    for character in _breaking(text):
        if character != "\n":
            raise ValueError(f"holds the control character U+{ord(character):04X}")
        if not many_lines:
            raise ValueError("holds a line break; it must be one line")
    refuse_special_tokens(text)
    return text


def _breaking(text: str) -> Iterator[str]:
    """Characters that are a control (Cc), half of a surrogate pair (Cs), or a line or paragraph separator."""
    return (c for c in text if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp"))

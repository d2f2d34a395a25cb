"""Reading the model's answer: strictly, or, where it was cut, by its complete beginning. Nothing is guessed.

Strict means: one JSON object, with rating, category and rationale, each once and nothing else; the rating
"Safe" or "Unsafe" letter for letter; the category one of the policy's own names, letter for letter. An answer
that misses by a
fence, a comma or a capital is malformed: asking again is cheap, and a parser that mends is one that can be
led.
"""

import json
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any, Literal, NoReturn

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from moderation.storable import storable
from moderation.verdict import Rating

MAX_CHARACTERS = 64 * 1024  # 500 tokens of white space are at most 64,000 characters in Qwen's vocabulary


class Malformed(Exception):
    """The answer cannot be read. `str(error)` is a code, and after a colon what was found."""


@dataclass(frozen=True, slots=True)
class ParsedAnswer:
    """What an answer says. truncated: the rationale was cut; it may be empty then."""

    rating: Rating
    category: str
    rationale: str
    truncated: bool = False


class _AnswerModel(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    rating: Literal["Safe", "Unsafe"]
    category: str = Field(min_length=1)
    rationale: str = Field(min_length=1)


def read(text: str, names: Collection[str]) -> ParsedAnswer:
    """Read a whole answer. names: the policy's category names. Raises Malformed."""
    answer = _validated(_object(text))
    _check_category(answer.category, names)
    if not answer.rationale.strip():
        raise Malformed("empty_rationale")
    return ParsedAnswer(Rating(answer.rating), answer.category, _check_storable(answer.rationale))


def _object(text: str) -> Any:
    if len(text) > MAX_CHARACTERS:
        raise Malformed(f"too_long: {len(text)} characters")
    if not text.strip():
        raise Malformed("empty")
    try:
        return json.loads(text, object_pairs_hook=_each_key_once, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        code = "text_after_answer" if error.msg == "Extra data" else "not_json"
        raise Malformed(f"{code}: {error.msg} at character {error.pos}") from error
    except (ValueError, RecursionError) as error:  # an endless number, or brackets without end
        raise Malformed(f"not_json: {type(error).__name__}") from error


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise Malformed("duplicate_key")
    return fields


def _refuse_constant(name: str) -> NoReturn:
    raise Malformed(f"not_json: {name}")


def _validated(value: Any) -> _AnswerModel:
    try:
        return _AnswerModel.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "answer"
        raise Malformed(f"wrong_field: {where[:80]}: {first['msg']}") from error


def _check_category(category: str, names: Collection[str]) -> None:
    if category not in names:
        raise Malformed(f"foreign_category: {category[:80]!r}")


def _check_storable(text: str) -> str:
    """The text, where Postgres can hold it as it is. Raises Malformed for NUL and halves of surrogate pairs."""
    if storable(text) != text:
        raise Malformed("unstorable_rationale")
    return text


_WS = r"[ \t\n\r]*"
_JSON_STRING = r'(?:[^"\\\x00-\x1f]|\\["\\/bfnrt]|\\u[0-9a-fA-F]{4})*'
_HEAD = re.compile(
    rf'{_WS}\{{{_WS}"rating"{_WS}:{_WS}"(?P<rating>Safe|Unsafe)"{_WS},'
    rf'{_WS}"category"{_WS}:{_WS}(?P<category>"{_JSON_STRING}")(?P<tail>.*)',
    re.DOTALL,
)
_RATIONALE = re.compile(rf'{_WS},{_WS}"rationale"{_WS}:{_WS}"(?P<text>{_JSON_STRING})(?P<end>.*)', re.DOTALL)


def _cut_anywhere(pieces: Iterable[str]) -> str:
    """A pattern for these pieces in a row, with any number of them missing from the end."""
    pattern = ""
    for piece in reversed([*pieces]):
        pattern = f"(?:{piece}{pattern})?"
    return pattern


# What may stand between the category's end and the rationale's opening quote.
_BETWEEN = re.compile(_WS + _cut_anywhere([f",{_WS}", '"', *"rationale", f'"{_WS}', f":{_WS}"]))
_CUT_ESCAPE = re.compile(r"\\(?:u[0-9a-fA-F]{0,3})?")


def salvage(text: str, names: Collection[str]) -> ParsedAnswer:
    """Read an answer that was cut: rating and category complete, the rationale as far as it goes.

    Everything up to the cut must be the template's beginning, in its order; only the end may be missing. So a
    category whose closing quote is missing is no category. Raises Malformed.
    """
    head = _HEAD.fullmatch(text[:MAX_CHARACTERS])
    if head is None:
        raise Malformed("cut_too_early")
    category = json.loads(head["category"])
    _check_category(category, names)
    rationale = _cut_rationale(head["tail"])
    return ParsedAnswer(Rating(head["rating"]), category, rationale, truncated=True)


def _cut_rationale(tail: str) -> str:
    if _BETWEEN.fullmatch(tail):
        return ""
    match = _RATIONALE.fullmatch(tail)
    if match is None:
        raise Malformed("not_a_cut_answer")
    end = match["end"]
    closed = re.fullmatch(f'"{_WS}', end)  # only the brace is missing
    if end and not closed and not _CUT_ESCAPE.fullmatch(end):
        raise Malformed("not_a_cut_answer")
    rationale: str = json.loads(f'"{match["text"]}"')
    if rationale and "\ud800" <= rationale[-1] <= "\udbff":
        rationale = rationale[:-1]  # the other half of the pair was cut off
    return _check_storable(rationale)


_BRIEF = re.compile(
    rf'\{{{_WS}"rating": "(?P<rating>Safe|Unsafe)",{_WS}"category": (?P<category>"{_JSON_STRING}"){_WS}'
    rf"(?:,{_WS})?(?:\}}{_WS})?"
)


def read_brief(text: str, names: Collection[str]) -> ParsedAnswer:
    """Read an answer that was asked for up to the category. Raises Malformed."""
    match = _BRIEF.fullmatch(text[:MAX_CHARACTERS])
    if match is None:
        raise Malformed("not_brief")
    category = json.loads(match["category"])
    _check_category(category, names)
    return ParsedAnswer(Rating(match["rating"]), category, "")

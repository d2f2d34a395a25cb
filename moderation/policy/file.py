"""A policy as a file that a person reads and edits: YAML that says only where it differs from the default.

    policy: city-news
    title: City news desk
    note: Agreed with legal.
    categories:
      O2: non-violating
      O9:
        can: [Contain rescue work.]
      O10:
        name: Gambling
        should_not: [Promote betting.]

A category of the nine keeps what the file leaves out: here O9 keeps the default's "Should not".
"""

import difflib
import re
from collections.abc import Iterable
from dataclasses import asdict
from operator import itemgetter
from typing import Annotated, Any, Literal, Self, get_args

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from moderation.errors import PolicyError
from moderation.policy.category import Category, CategoryState
from moderation.policy.dsa import DsaCategory, DsaMapping
from moderation.policy.markup import Document, Path, place, read_yaml
from moderation.policy.revision import PolicyRevision
from moderation.policy.text import default_text

_MOST_PROBLEMS = 10  # said at once; more would hide the first
_BULLETS = ("should_not", "can")
_State = Literal["default", "non-violating", "sensitive"]
_STATES = get_args(_State)


def _entry(value: object) -> object:
    """`O4: sensitive` is short for `O4: {state: sensitive}`."""
    return {"state": value} if isinstance(value, str) else value


def _whole_number(value: object) -> object:
    if not isinstance(value, str) or not re.fullmatch(r"[1-9][0-9]{0,8}", value):
        raise ValueError("must be a whole number from 1")
    return int(value)


def _number(value: object) -> object:
    if not isinstance(value, str) or not re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,3})?", value):
        raise ValueError("must be a number of levels, above 0 and up to 255")
    return float(value)


class _CategoryEntry(BaseModel):
    """What a file says of one category; the words themselves are checked by Category."""

    model_config = ConfigDict(extra="forbid")

    name: str | None = None
    state: _State | None = None
    should_not: list[str] = Field(default_factory=list)
    can: list[str] = Field(default_factory=list)

    @model_validator(mode="after")
    def _state_or_bullets(self) -> Self:
        if (self.state is not None) == (not self.model_fields_set.isdisjoint(_BULLETS)):
            raise ValueError(f"give either a state ({', '.join(_STATES)}) or bullets ({', '.join(_BULLETS)})")
        return self


class _File(BaseModel):
    """The fields of a policy file."""

    model_config = ConfigDict(extra="forbid")

    policy: str
    revision: Annotated[int, BeforeValidator(_whole_number)] = 1
    title: str
    note: str = ""
    categories: dict[str, Annotated[_CategoryEntry, BeforeValidator(_entry)]] = Field(default_factory=dict)
    dsa: DsaMapping | None = None
    review_views_differ: Annotated[float, BeforeValidator(_number)] | None = None


def load_policy(text: str, *, source: str) -> PolicyRevision:
    """The revision that a file describes. `source` is the file's name, for messages.

    A file that names no revision leaves it unset (not in `model_fields_set`): the registry gives it the next.
    Raises PolicyError that names every problem with its file, line and field.
    """
    document = read_yaml(text, source=source)
    try:
        file = _File.model_validate(document.content)
        categories = _categories(file, document)
        fields = {name: getattr(file, name) for name in file.model_fields_set}
        return PolicyRevision(**{**fields, "categories": categories})
    except ValidationError as exc:
        raise _refusal(document, ((e["loc"], _problem(e)) for e in exc.errors())) from exc


def _categories(file: _File, document: Document) -> tuple[Category, ...]:
    """The nine, then the file's own in the order of their numbers."""
    known = list(default_text().categories)
    own = sorted(file.categories.keys() - known, key=lambda name: (len(name), name))
    expected = [f"O{len(known) + 1 + n}" for n in range(len(own))]
    if strange := [name for name in own if name not in expected]:
        problem = "unknown category; the model's are O1 to O9, own ones go on from O10 without a gap"
        raise _refusal(document, ((("categories", name), problem) for name in strange))
    return tuple(_category(name, file.categories.get(name), document) for name in (*known, *own))


def _category(category_id: str, entry: _CategoryEntry | None, document: Document) -> Category:
    """One of the nine keeps what the file leaves out: its name, and a list of bullets that is not given."""
    if entry is None:
        return Category.in_state(category_id)
    known = default_text().categories.get(category_id)
    parts: dict[str, Any] = {"id": category_id, "should_not": (), "can": ()}
    parts |= asdict(known) if known else {}
    parts |= entry.model_dump(exclude_unset=True) | {"state": entry.state or CategoryState.CUSTOM}
    try:
        return Category.model_validate(parts)
    except ValidationError as exc:
        path = ("categories", category_id)
        raise _refusal(document, (((*path, *e["loc"]), _problem(e)) for e in exc.errors())) from exc


def _refusal(document: Document, problems: Iterable[tuple[Path, str]]) -> PolicyError:
    """The problems in one line, in the order of the file's lines."""
    placed = sorted(((document.line(path), path, problem) for path, problem in problems), key=itemgetter(0))
    lines = [place(document.source, *problem) for problem in placed[:_MOST_PROBLEMS]]
    more = [f"and {len(placed) - len(lines)} more"] if len(placed) > len(lines) else []
    return PolicyError("; ".join([*lines, *more]))


def _problem(error: ErrorDetails) -> str:
    """Pydantic's words for a programmer in words for the file's author."""
    match error["type"]:
        case "extra_forbidden":
            return "unknown field" + _suggestion(str(error["loc"][-1]))
        case "missing":
            return "is missing"
        case "value_error":
            return str(error["ctx"]["error"])
        case "literal_error":
            return f"must be {error['ctx']['expected'].replace(chr(39), '')}"
        case "string_type":
            return "must be a text"
        case "list_type":
            return "must be a list"
        case "dict_type" | "model_type":
            return "must be a mapping"
        case _:
            return error["msg"]


def _suggestion(name: str) -> str:
    fields = [
        *_File.model_fields,
        *_CategoryEntry.model_fields,
        *DsaMapping.model_fields,
        *DsaCategory.model_fields,
    ]
    close = difflib.get_close_matches(name.replace("-", "_").lower(), fields, n=1)
    return f"; did you mean {close[0]}?" if close else ""


class _Dumper(yaml.SafeDumper):
    """Writes a text of several lines as a block, so that a person can edit it."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)


def dump_policy(revision: PolicyRevision) -> str:
    """The revision as a file. `load_policy` of it gives the revision back."""
    content: dict[str, Any] = revision.model_dump(include={"policy", "revision", "title"})
    if revision.note:
        content["note"] = revision.note
    if entries := {c.id: _dumped(c) for c in revision.categories if c.state is not CategoryState.DEFAULT}:
        content["categories"] = entries
    if revision.dsa:
        content["dsa"] = revision.dsa.model_dump(mode="json", exclude_defaults=True)
    if revision.review_views_differ is not None:
        content["review_views_differ"] = revision.review_views_differ
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=float("inf"))


def _dumped(category: Category) -> str | dict[str, Any]:
    if category.state is not CategoryState.CUSTOM:
        return category.state.value
    name = {} if category.trained else {"name": category.name}
    return {**name, "should_not": list(category.should_not), "can": list(category.can)}

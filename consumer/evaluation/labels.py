"""LabelledImage rows: an image, what people said of it, and under which rules. From a table's columns to checked values."""

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from moderation.errors import BadSource, PolicyError
from moderation.policy import builtin_policies
from moderation.policy.prompt import parse_prompt, render

_UNSAFE = frozenset({"unsafe", "1", "true", "yes"})
_SAFE = frozenset({"safe", "0", "false", "no"})
_CATEGORY = re.compile(r"(O[1-9][0-9]{0,2}|NA)\b")
_SHA256 = re.compile(r"[0-9a-f]{64}")
# LlavaGuard-DS names rows under a policy that was changed so that the rating turns: v2 to Safe, v4 to Unsafe.
_EXCEPTION = re.compile(r".*_v([24])(?:\D.*)?")
DEFAULT_PROMPT_SHA256 = next(p for p in builtin_policies() if p.policy == "llavaguard-default").prompt_sha256

_USUAL = {
    "row": ("id", "key"),
    "uri": ("uri", "url", "image", "path"),
    "label": ("label", "rating", "expected_rating", "safety_label", "final-assessment"),
    "category": ("category", "expected_category"),
    "policy": ("policy", "policy_sha256"),
}


@dataclass(frozen=True, slots=True)
class LabelledImage:
    """One row. row: its name, the same in every run. policy: sha256 of the rules' rendered text; None: not said.

    text: the rules themselves, where the row carries them. exception: the rules make an exception of this image.
    problem: why it cannot be used; then only row and uri hold.
    """

    row: str
    uri: str
    unsafe: bool = False
    category: str | None = None
    policy: str | None = None
    text: str | None = None
    exception: bool = False
    groups: tuple[str | None, ...] = ()
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class LabelColumns:
    """Which column is what; None for the first of the usual names, which for category, policy and row need not be."""

    uri: str | None = None
    label: str | None = None
    row: str | None = None
    category: str | None = None
    policy: str | None = None
    groups: tuple[str, ...] = ()

    def named(self, names: Sequence[str], source: str, *, with_uri: bool = True) -> dict[str, str | None]:
        """The column for each field. Raises BadSource where one that is needed or named is not there."""
        found: dict[str, str | None] = {}
        for field, usual in _USUAL.items():
            given = getattr(self, field)
            found[field] = given or next((name for name in usual if name in names), None)
            needed = field == "label" or (field == "uri" and with_uri)
            if given not in {None, *names} or (needed and found[field] is None):
                option = f"--{'id' if field == 'row' else field}-column"
                raise BadSource(
                    f"{source}: which column is the {field}? Say {option}; there are {', '.join(names)}"
                )
        if missing := [name for name in self.groups if name not in names]:
            raise BadSource(f"{source} has no column {missing[0]!r} to group by; it has {', '.join(names)}")
        return found


def labelled(
    row: Mapping[str, Any], columns: Mapping[str, str | None], groups: Sequence[str], *, uri: str
) -> LabelledImage:
    """A row as it is meant. What cannot be meant is a problem, and counted."""
    value = {field: row.get(column) if column else None for field, column in columns.items()}
    name = "" if value["row"] is None else str(value["row"])
    unsafe = _rating(value["label"])
    if unsafe is None:
        return LabelledImage(
            name, uri, problem=f"label {str(value['label'])[:40]!r} is neither Safe nor Unsafe"
        )
    text, policy = _policy(value["policy"])
    return LabelledImage(
        row=name,
        uri=uri,
        unsafe=unsafe,
        category=category_id(value["category"]),
        policy=policy,
        text=text,
        groups=tuple(None if (found := row.get(group)) is None else str(found) for group in groups),
    )


def category_id(text: Any) -> str | None:
    """O4 for "O4: Nudity Content"; the word itself where it is another set's; None for nothing."""
    said = "" if text is None else str(text).strip()
    match = _CATEGORY.match(said)
    return match[1] if match else said or None


def _rating(value: Any) -> bool | None:
    said = str(value).strip().lower()
    return True if said in _UNSAFE else False if said in _SAFE else None


_rendered: dict[str, str | None] = {}  # by text: a set has some dozens of them for thousands of rows


def _policy(value: Any) -> tuple[str | None, str | None]:
    """The text, where it is one, and its digest as this release renders it."""
    said = "" if value is None else str(value).strip()
    if not said:
        return None, None
    if _SHA256.fullmatch(said):
        return None, said
    if said not in _rendered:
        try:
            _rendered[said] = hashlib.sha256(render(parse_prompt(said)).encode()).hexdigest()
        except PolicyError:
            _rendered[said] = None
    return said, _rendered[said] or hashlib.sha256(said.encode()).hexdigest()


def settled(rows: Iterable[LabelledImage]) -> list[LabelledImage]:
    """Every row named once, and its exception known. A row without a name is called by its image and rules."""
    found: list[LabelledImage] = []
    taken: defaultdict[str, int] = defaultdict(int)
    for row in rows:
        name = row.row or hashlib.sha256(f"{row.uri}\0{row.policy}".encode()).hexdigest()[:16]
        taken[name] += 1
        found.append(row if taken[name] == 1 and row.row else replace(row, row=_numbered(name, taken[name])))
    return _with_exceptions(found)


def _numbered(name: str, number: int) -> str:
    return name if number == 1 else f"{name}#{number}"


def _with_exceptions(rows: list[LabelledImage]) -> list[LabelledImage]:
    """By the names of LlavaGuard-DS; else those rated otherwise than the same image under the default policy."""
    if any(_EXCEPTION.fullmatch(row.row) for row in rows):
        return [replace(row, exception=True) if _turned(row) else row for row in rows]
    default = {row.uri: row.unsafe for row in rows if row.policy == DEFAULT_PROMPT_SHA256}
    return [
        replace(row, exception=True)
        if row.policy not in {None, DEFAULT_PROMPT_SHA256} and default.get(row.uri, row.unsafe) != row.unsafe
        else row
        for row in rows
    ]


def _turned(row: LabelledImage) -> bool:
    match = _EXCEPTION.fullmatch(row.row)
    return match is not None and row.unsafe == (match[1] == "4")


def digest_of(rows: Iterable[LabelledImage], *, with_uri: bool) -> str:
    """SHA-256 of what people said of which images: the same in any order, and for any verdicts."""
    lines = sorted(
        json.dumps([r.row, r.uri if with_uri else None, r.unsafe, r.category, r.policy, r.groups, r.problem])
        for r in rows
    )
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()

"""YAML to plain dicts, lists and texts that remember their lines. Only what a policy file needs of YAML.

Every scalar is the text as written, so `can: [No]` means the word and not a boolean. Anchors, aliases and
tags are refused: a file of a few bytes must not unfold to gigabytes, and a person reads each value where it
stands.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NoReturn

import yaml
from yaml.events import (
    AliasEvent,
    CollectionStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
)
from yaml.reader import ReaderError

from moderation.errors import PolicyError

MAX_CHARACTERS = 64 * 1024  # some six times the longest text that fits the model's context beside an image
MAX_DEPTH = 8  # a policy file needs four

Plain = str | list["Plain"] | dict[str, "Plain"]
Path = tuple[str | int, ...]


@dataclass
class Document:
    """A file's content, and the line on which each key or list item stands, counted from 1."""

    source: str
    content: dict[str, Plain] = field(default_factory=dict)
    lines: dict[Path, int] = field(default_factory=dict)

    def line(self, path: Path) -> int:
        """The line of a path, or of the nearest thing around it that the file has."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)


def place(source: str, line: int, path: Path, problem: str) -> str:
    """One line for a person: "strict.yaml:12: categories.O4.state: ...". List items count from 1."""
    name = ".".join(str(part + 1) if isinstance(part, int) else _shown(part) for part in path)
    return ": ".join(part for part in (f"{source}:{line}", name, problem) if part)


def _shown(text: str) -> str:
    """On one line of a terminal, whatever the file holds."""
    return text if text.isprintable() else repr(text)


def read_yaml(text: str, *, source: str) -> Document:
    """Raises PolicyError where the text is not one mapping of texts, lists and mappings."""
    if len(text) > MAX_CHARACTERS:
        raise PolicyError(f"{source}: has {len(text)} characters; a policy file has at most {MAX_CHARACTERS}")
    try:
        return _YamlReader(text, source).read()
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark or exc.context_mark
        problem = ", ".join(part for part in (exc.context, exc.problem) if part)
        raise PolicyError(place(source, mark.line + 1 if mark else 1, (), f"not YAML: {problem}")) from exc
    except ReaderError as exc:
        line = text.count("\n", 0, exc.position) + 1
        raise PolicyError(
            place(source, line, (), f"holds the character U+{ord(text[exc.position]):04X}")
        ) from exc


class _YamlReader:
    """Builds the document from PyYAML's events, which neither resolve nor construct anything."""

    def __init__(self, text: str, source: str) -> None:
        self.events: Iterator[Event] = yaml.parse(text, Loader=yaml.SafeLoader)
        self.document = Document(source)

    def read(self) -> Document:
        next(self.events)  # the stream's start
        if isinstance(start := next(self.events), StreamEndEvent):
            self._refuse(start, (), "is empty")
        content = self._value(root := next(self.events), ())
        if not isinstance(content, dict):
            self._refuse(root, (), "must be a mapping of fields, such as `policy: my-policy`")
        next(self.events)  # the document's end
        if not isinstance(end := next(self.events), StreamEndEvent):
            self._refuse(end, (), "a second document begins; a file holds one policy")
        self.document.content = content
        return self.document

    def _value(self, event: Event, path: Path) -> Plain:
        if isinstance(event, AliasEvent) or (isinstance(event, NodeEvent) and event.anchor is not None):
            self._refuse(event, path, "anchors and aliases (& and *) are not allowed; write the value out")
        if isinstance(event, ScalarEvent | CollectionStartEvent) and event.tag is not None:
            self._refuse(event, path, f"tags such as {_shown(event.tag)} are not allowed")
        if len(path) > MAX_DEPTH:
            self._refuse(event, path[:1], f"nested deeper than {MAX_DEPTH}")
        if isinstance(event, MappingStartEvent):
            return self._mapping(path)
        if isinstance(event, SequenceStartEvent):
            return self._list(path)
        assert isinstance(event, ScalarEvent), event
        return str(event.value)

    def _mapping(self, path: Path) -> dict[str, Plain]:
        mapping: dict[str, Plain] = {}
        while not isinstance(event := next(self.events), MappingEndEvent):
            if not isinstance(event, ScalarEvent):
                self._refuse(event, path, "a field's name must be a text")
            key = str(self._value(event, path))
            here = (*path, key)
            if key in mapping:
                self._refuse(event, here, f"stands twice; first on line {self.document.lines[here]}")
            self.document.lines[here] = _line(event)
            mapping[key] = self._value(next(self.events), here)
        return mapping

    def _list(self, path: Path) -> list[Plain]:
        items: list[Plain] = []
        while not isinstance(event := next(self.events), SequenceEndEvent):
            here = (*path, len(items))
            self.document.lines[here] = _line(event)
            items.append(self._value(event, here))
        return items

    def _refuse(self, event: Event, path: Path, problem: str) -> NoReturn:
        raise PolicyError(place(self.document.source, _line(event), path, problem))


def _line(event: Event) -> int:
    return event.start_mark.line + 1 if event.start_mark else 1

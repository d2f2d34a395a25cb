"""Which column of a table, or field of an object, is the image, its key and priority, and what is kept with it."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from moderation.errors import BadSource, InvalidSubmission
from producer.sources.item import Item, item_of_file, item_of_uri, names_a_uri
from producer.sources.unused_fields import UnusedFields

_USUAL = ("uri", "url", "image", "path")  # tried in this order where no column is named
ALL = "*"


@dataclass(frozen=True, slots=True)
class Columns:
    """uri: the image's; None for the first of the usual names. metadata: which to keep; `*` for all others."""

    uri: str | None = None
    key: str | None = None
    metadata: tuple[str, ...] = ()
    priority: str | None = None
    unused: UnusedFields = field(default_factory=UnusedFields, repr=False, compare=False)

    def check(self, names: Collection[str], source: str, *, added: Collection[str] = ()) -> None:
        """Raises BadSource where a table has not these columns. added: what its reader makes of others."""
        wanted = [
            name for name in (self.uri, self.key, self.priority, *self.metadata) if name not in {None, ALL}
        ]
        if missing := next((name for name in wanted if name not in {*names, *added}), None):
            raise BadSource(f"{source} has no column {missing!r}; it has {', '.join(names)}")
        self._look_for_unused(names)
        if self.uri is None and not set(_USUAL) & set(names):
            raise BadSource(
                f"{source} has none of the columns {', '.join(_USUAL)}: name one with --uri-column; "
                f"it has {', '.join(names)}"
            )

    def needed(self, names: Collection[str]) -> list[str]:
        """Those of a table that are read."""
        if ALL in self.metadata:
            return list(names)
        return [
            name for name in names if name in {self._uri_in(names), self.key, self.priority, *self.metadata}
        ]

    def item(self, row: Mapping[str, Any], base: Path) -> Item:
        """The image of a row; a relative path is meant from `base`. Raises InvalidSubmission where it has none."""
        name = self._uri_in(row)
        self._look_for_unused(row.keys())
        fields: dict[str, Any] = {"metadata": self._kept(row, name)}
        if self.priority is not None and row.get(self.priority) not in {None, ""}:
            fields["priority"] = _text(row, self.priority)
        if not isinstance(row.get(name), str | None):
            raise InvalidSubmission(f"{name} is not text")
        item = image_named(_text(row, name), base, fields)
        if self.key is None:
            return item
        return Item(item.uri, _text(row, self.key), key_is_given=True, **fields)

    def _uri_in(self, names: Collection[str]) -> str:
        return self.uri or next((name for name in _USUAL if name in names), _USUAL[0])

    def _look_for_unused(self, names: Collection[str]) -> None:
        if ALL not in self.metadata:  # which keeps them
            self.unused.look(names, {self.uri, self.key, self.priority, *self.metadata})

    def _kept(self, row: Mapping[str, Any], uri: str) -> dict[str, Any] | None:
        if ALL in self.metadata:
            return {
                str(name): value for name, value in row.items() if name not in {uri, self.key, self.priority}
            }
        return {name: row.get(name) for name in self.metadata} or None


def image_named(text: str, base: Path, fields: dict[str, Any]) -> Item:
    """A URI, or the path of a file. Raises InvalidSubmission where there is no such file."""
    if names_a_uri(text):
        return item_of_uri(text, **fields)
    path = base / text
    try:
        if path.is_file():
            return item_of_file(path, **fields)
    except (OSError, ValueError) as exc:  # too long, or with NUL
        raise InvalidSubmission(f"not a URI, and no file can be named so: {exc}") from None
    raise InvalidSubmission("neither a URI nor a file that is there")


def _text(row: Mapping[str, Any], name: str) -> str:
    value = row.get(name)
    if value is None or value == "":
        raise InvalidSubmission(f"{name} is empty")
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise InvalidSubmission(f"{name} is not text")

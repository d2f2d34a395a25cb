"""JSON lines: an object on each, or a URI as a string."""

from collections.abc import Iterator
from dataclasses import dataclass

from pydantic_core import from_json

from moderation.errors import InvalidSubmission
from producer.sources.columns import Columns
from producer.sources.item import Cursor, Item, Reject, SourceStep, item_of_uri
from producer.sources.text import TextLine, base_of, identity_of, lines_of


@dataclass(frozen=True, slots=True)
class JsonLines:
    name: str
    columns: Columns

    @property
    def identity(self) -> str:
        return identity_of(self.name)

    def read(self, after: Cursor = None) -> Iterator[SourceStep]:
        behind = after if isinstance(after, int) else 0
        for line in lines_of(self.name):
            if line.number > behind and line.text != "":
                yield SourceStep(self._what(line), cursor=line.number, line=line.number, done=line.done)

    def _what(self, line: TextLine) -> Item | Reject:
        if line.text is None:
            return Reject(line.problem)
        try:
            value = from_json(line.text, allow_inf_nan=False)
        except ValueError as exc:
            return Reject(f"not JSON: {exc}")
        try:
            if isinstance(value, str):
                return item_of_uri(value)
            if isinstance(value, dict):
                return self.columns.item(value, base_of(self.name))
        except InvalidSubmission as exc:
            return Reject(str(exc))
        return Reject("neither a JSON object nor a string")

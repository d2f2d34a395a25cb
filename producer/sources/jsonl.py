"""JSON lines: an object on each, or a URI as a string."""

from collections.abc import Iterator
from dataclasses import dataclass

from pydantic_core import from_json

from moderation.errors import InvalidSubmission
from producer.sources.columns import Columns
from producer.sources.item import Cursor, Item, Refusal, Step, item_of_uri
from producer.sources.text import Line, base_of, identity_of, lines_of


@dataclass(frozen=True, slots=True)
class JsonLines:
    name: str
    columns: Columns

    @property
    def identity(self) -> str:
        return identity_of(self.name)

    def read(self, after: Cursor = None) -> Iterator[Step]:
        behind = after if isinstance(after, int) else 0
        for line in lines_of(self.name):
            if line.number > behind and line.text != "":
                yield Step(self._what(line), cursor=line.number, line=line.number, done=line.done)

    def _what(self, line: Line) -> Item | Refusal:
        if line.text is None:
            return Refusal(line.problem)
        try:
            value = from_json(line.text, allow_inf_nan=False)
        except ValueError as exc:
            return Refusal(f"not JSON: {exc}")
        try:
            if isinstance(value, str):
                return item_of_uri(value)
            if isinstance(value, dict):
                return self.columns.item(value, base_of(self.name))
        except InvalidSubmission as exc:
            return Refusal(str(exc))
        return Refusal("neither a JSON object nor a string")

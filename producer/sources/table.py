"""CSV and TSV with a header."""

import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from moderation.errors import BadSource, InvalidSubmission
from producer.sources.columns import Columns
from producer.sources.item import Cursor, Item, Reject, SourceStep
from producer.sources.text import TextLine, base_of, identity_of, lines_of

Row = dict[str, str]


@dataclass(frozen=True, slots=True)
class Table:
    """change: what a row is made into before its columns are read; see the layouts."""

    name: str
    columns: Columns
    change: Callable[[Row], Row] = field(default=lambda row: row)

    @property
    def identity(self) -> str:
        return identity_of(self.name)

    def read(self, after: Cursor = None) -> Iterator[SourceStep]:
        behind = after if isinstance(after, int) else 0
        lines = _CsvLines(lines_of(self.name))
        rows = csv.reader(lines, delimiter="\t" if ".tsv" in self.name else ",", strict=True)
        names = next(rows, None)
        if not names:
            raise BadSource(f"{self.name} has no header")
        self.columns.check(names, self.name, added=self.change(dict.fromkeys(names, "")).keys())
        while True:
            what: Item | Reject
            start = lines.number + 1
            try:
                values = next(rows)
            except StopIteration:
                return
            except csv.Error as exc:
                what = Reject(f"not CSV: {exc}")
            else:
                if not values:
                    continue
                what = self._what(names, values, lines.problem)
            lines.problem = ""
            if start > behind:
                yield SourceStep(what, cursor=start, line=start, done=lines.done)

    def _what(self, names: list[str], values: list[str], problem: str) -> Item | Reject:
        if problem:
            return Reject(problem)
        if len(values) != len(names):
            return Reject(f"the row has {len(values)} fields, the header {len(names)}")
        try:
            return self.columns.item(self.change(dict(zip(names, values, strict=True))), base_of(self.name))
        except InvalidSubmission as exc:
            return Reject(str(exc))


class _CsvLines:
    """Lines as the csv module reads them: it asks for more where a quoted field goes on."""

    def __init__(self, lines: Iterator[TextLine]) -> None:
        self._lines = lines
        self.number = 0
        self.done: float | None = None
        self.problem = ""

    def __iter__(self) -> "_CsvLines":
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        self.number, self.done = line.number, line.done
        self.problem = self.problem or line.problem
        return (line.text if line.text is not None else "?") + "\n"

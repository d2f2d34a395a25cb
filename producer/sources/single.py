"""One image: a file or a URI."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from moderation.errors import BadSource
from producer.sources.item import Cursor, SourceStep, file_identity, item_of_file, item_of_uri, names_a_uri


@dataclass(frozen=True, slots=True)
class Single:
    name: str

    @property
    def identity(self) -> str:
        return self.name if names_a_uri(self.name) else file_identity(Path(self.name))

    def read(self, after: Cursor = None) -> Iterator[SourceStep]:
        if after is not None:
            return
        try:
            item = item_of_uri(self.name) if names_a_uri(self.name) else item_of_file(Path(self.name))
        except OSError as exc:
            raise BadSource(f"{self.name}: {exc.strerror}") from exc
        yield SourceStep(item, cursor=1, done=1)

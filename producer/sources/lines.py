"""Lines of text, each a URI, a file or a folder; empty ones and comments (#) are passed over."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from moderation.errors import BadSource, InvalidSubmission
from producer.sources.columns import image_named
from producer.sources.folder import Folder
from producer.sources.item import Cursor, Reject, SourceStep, names_a_uri
from producer.sources.text import TextLine, base_of, identity_of, lines_of


@dataclass(frozen=True, slots=True)
class LineList:
    name: str
    patterns: Sequence[str] = ()

    @property
    def identity(self) -> str:
        return identity_of(self.name)

    def read(self, after: Cursor = None) -> Iterator[SourceStep]:
        behind, base = after if isinstance(after, int) else 0, base_of(self.name)
        for line in lines_of(self.name):
            if line.number > behind and (line.text is None or _says_something(line.text)):
                yield from self._steps(line, base)

    def _steps(self, line: TextLine, base: Path) -> Iterator[SourceStep]:
        text = (line.text or "").strip()
        what: Reject | None = None
        if line.text is None:
            what = Reject(line.problem)
        elif not names_a_uri(text) and _is_folder(base / text):
            yield from self._folder(base / text, line)
            return
        try:
            item = what or image_named(text, base, {})
        except InvalidSubmission as exc:
            item = Reject(str(exc), text)
        yield SourceStep(item, cursor=line.number, line=line.number, done=line.done)

    def _folder(self, path: Path, line: TextLine) -> Iterator[SourceStep]:
        """Its images; the line is behind us with the last of them, and its folder's own cursors mean nothing here."""
        last: SourceStep | None = None
        try:
            for step in Folder(str(path), self.patterns).read():
                if last is not None:
                    yield SourceStep(last.what, cursor=line.number - 1, line=line.number, done=line.done)
                last = step
        except BadSource as exc:
            last = SourceStep(Reject(str(exc), str(path)))
        assert last is not None
        yield SourceStep(last.what, cursor=line.number, line=line.number, done=line.done)


def _says_something(text: str) -> bool:
    return bool(text.strip()) and not text.lstrip().startswith("#")


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):  # too long for a path, or with NUL: a data URI
        return False

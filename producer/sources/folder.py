"""Reads a folder and everything below it, in the order of names. Memory is bounded by its largest single directory."""

import fnmatch
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from moderation.errors import BadSource
from producer.sources.item import IMAGE_SUFFIXES, Cursor, Reject, SourceStep, item_of_file


@dataclass(frozen=True, slots=True)
class Folder:
    """patterns: shell patterns; none means whatever is named like an image."""

    name: str
    patterns: Sequence[str] = ()

    @property
    def identity(self) -> str:
        return str(Path(self.name).resolve())

    def read(self, after: Cursor = None) -> Iterator[SourceStep]:
        has_images = after is not None
        behind = PurePosixPath(after).parts if isinstance(after, str) else ()
        for step in self._walk((), behind, 0, 1):
            has_images = True
            yield step
        if not has_images:
            raise BadSource(
                f"no images in folder {self.name}" + (" match the pattern" if self.patterns else "")
            )

    def _walk(
        self, parts: tuple[str, ...], behind: tuple[str, ...], done: float, share: float
    ) -> Iterator[SourceStep]:
        """Below the directory `parts`, what comes behind `behind`; the directory is `share` of all, from `done` on."""
        path = Path(self.name, *parts)
        try:
            with os.scandir(path) as entries:
                children = sorted((entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries)
        except OSError as exc:
            yield SourceStep(
                Reject(f"cannot be read: {exc.strerror}", str(path)),
                cursor="/".join(parts) or None,
                done=done,
            )
            return
        each = share / max(len(children), 1)
        for number, (name, is_folder) in enumerate(children):
            here = (*parts, name)
            start = done + number * each
            if is_folder:
                if here >= behind[: len(here)]:
                    yield from self._walk(here, behind, start, each)
            elif here > behind and self._is_meant(here):
                yield from _step(path / name, "/".join(here), start + each)

    def _is_meant(self, parts: tuple[str, ...]) -> bool:
        return is_meant("/".join(parts), self.patterns)


def is_meant(place: str, patterns: Sequence[str]) -> bool:
    """Whether a place below the folder or prefix matches a pattern, as a whole or by its name."""
    name = place.rpartition("/")[2]
    if not patterns:
        return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES
    return any(fnmatch.fnmatchcase(text, pattern) for pattern in patterns for text in (place, name))


def _step(path: Path, cursor: str, done: float) -> Iterator[SourceStep]:
    try:
        if path.is_file():
            yield SourceStep(item_of_file(path), cursor=cursor, done=done)
    except OSError as exc:  # it went away meanwhile
        yield SourceStep(Reject(f"cannot be read: {exc.strerror}", str(path)), cursor=cursor, done=done)

"""The checkpoint: how far an enqueue run has come, on disk, so that an interrupted run resumes there.

It is written after each committed chunk, so a `kill -9` submits at most one chunk again, under the same keys. It
names the last assessment that was committed. A ledger that does not know that one is another ledger, or an older
state of it, and everything is submitted again.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Self
from uuid import UUID, uuid4

from moderation.errors import BadSource
from moderation.services.lock import FileLock
from producer.sources import Cursor


@dataclass(frozen=True, slots=True)
class Position:
    """source: which one, by its position. run: the same for all of one enqueuing, however often interrupted.

    cancelled: of the known, those that somebody cancelled.
    refused_bytes: how long the file of refusals was, which is cut to that, so that none stands in it twice.
    """

    source: int = 0
    cursor: Cursor = None
    run: str = field(default_factory=lambda: uuid4().hex)
    last_id: str | None = None
    accepted: int = 0
    known: int = 0
    cancelled: int = 0
    refused: int = 0
    refused_bytes: int = 0

    @property
    def last(self) -> UUID | None:
        return UUID(self.last_id) if self.last_id else None

    def again(self) -> "Position":
        """The beginning, of the same run."""
        return Position(run=self.run)

    def moved(self, **changes: Any) -> "Position":
        return replace(self, **changes)


class Checkpoint:
    """One file for each enqueuing: the same sources with the same options into the same ledger."""

    def __init__(self, folder: Path, job: Sequence[object]) -> None:
        """meant: all that makes it the same enqueuing. Raises BadSource where it runs already, or cannot be kept."""
        name = digest(job)
        self._path = folder / f"{name}.json"
        self.refused_path = folder / f"{name}.refused.jsonl"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(folder / f"{name}.lock")
        except OSError as exc:
            raise BadSource(f"no place to keep in {folder}: {exc.strerror}; see VETLINE_DATA_DIR") from exc
        if not self._lock.try_take():
            raise BadSource("the same enqueuing runs already in this folder")

    def read(self) -> Position | None:
        """Where an interrupted one stands; None where none was interrupted."""
        try:
            return Position(**json.loads(self._path.read_text()))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError):  # of another release
            return None

    def write(self, place: Position) -> None:
        new = self._path.with_suffix(".new")
        new.write_text(json.dumps(asdict(place)))
        new.replace(self._path)

    def forget(self) -> None:
        """It is done: the next one begins at the beginning."""
        self._path.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.close()


def digest(job: Sequence[object]) -> str:
    """A name for files of this enqueuing alone."""
    return hashlib.sha256(json.dumps(job).encode()).hexdigest()[:20]

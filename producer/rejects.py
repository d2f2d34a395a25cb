"""The file of what was refused: a JSON line each, with the source, the line in it, the reason, and the image."""

import json
from pathlib import Path
from typing import IO, Self

from moderation.redaction import redact_uri, without_secrets
from producer.sources import Reject

_SHOWN = 20  # on the terminal; the file has all


class Rejects:
    """Opened when the first is written, so that no empty file is left where there was none."""

    def __init__(self, path: Path, *, keep_bytes: int = 0) -> None:
        """keep_bytes: how much of an earlier file to go on with."""
        self.path = path
        self.first: list[str] = []
        self._keep = keep_bytes
        self._file: IO[bytes] | None = None

    def add(self, source: str, line: int | None, refusal: Reject) -> None:
        entry = {"source": source, "line": line, "reason": refusal.reason}
        if refusal.image is not None:
            entry["image"] = _shown(refusal.image)
        self._opened().write(json.dumps(entry).encode() + b"\n")
        if len(self.first) < _SHOWN:
            where = f"line {line}" if line is not None else entry.get("image") or source
            self.first.append(f"{where}: {refusal.reason}")

    def flush(self) -> int:
        """Hand what was added to the system; how long the file then is, in bytes."""
        if self._file is None:
            return self._keep
        self._file.flush()
        return self._file.tell()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def _opened(self) -> IO[bytes]:
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("r+b" if self._keep and self.path.exists() else "wb")
            self._file.truncate(self._keep)
            self._file.seek(0, 2)
        return self._file


def _shown(image: str) -> str:
    return redact_uri(without_secrets(image)) if "://" in image or image.startswith("data:") else image

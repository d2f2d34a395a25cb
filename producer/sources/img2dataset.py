"""A data set that img2dataset downloaded: shards, each a Parquet table and a folder of images (output_format=files).

Images inside tar files (output_format=webdataset) are refused: no worker reads a tar. Unpack them, or judge what the
URLs show now with --uri-column url.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moderation.errors import BadSource
from producer.sources.item import Cursor, Item, Reject, SourceStep, item_of_file, item_of_uri
from producer.sources.parquet import opened, rows_behind

_KEPT = ("key", "url", "sha256", "caption")
_CAPTION = 1000  # characters; some alt texts are whole pages
_SUFFIXES = ("jpg", "png", "webp")  # what img2dataset encodes to
_READ = ("key", "url", "status", "error_message", "sha256", "caption")


def is_img2dataset(folder: Path) -> bool:
    """Whether img2dataset wrote it: it leaves statistics beside each shard."""
    return (
        next(folder.glob("*_stats.json"), None) is not None
        and next(folder.glob("*.parquet"), None) is not None
    )


@dataclass(frozen=True, slots=True)
class Img2Dataset:
    """by_url: whether to judge what the URL shows now, instead of what was downloaded."""

    name: str
    by_url: bool = False

    @property
    def identity(self) -> str:
        return str(Path(self.name).resolve())

    def read(self, after: Cursor = None) -> Iterator[SourceStep]:
        shards = sorted(Path(self.name).glob("*.parquet"))
        if not shards:
            raise BadSource(f"{self.name} has no shards of img2dataset (NNNNN.parquet)")
        reached, _, row = after.partition("/") if isinstance(after, str) else ("", "", "0")
        for done, shard in enumerate(shards):
            if shard.stem >= reached:
                behind = int(row) if shard.stem == reached else 0
                yield from self._shard(shard, behind, done, len(shards))

    def _shard(self, shard: Path, behind: int, done: int, shards: int) -> Iterator[SourceStep]:
        with opened(str(shard)) as file:
            names = [name for name in _READ if name in file.schema_arrow.names]
            if not {"key", "url", "status"} <= set(names):
                raise BadSource(f"{shard} is no shard of img2dataset: it has no key, url and status")
            total = file.metadata.num_rows or 1
            for number, row in rows_behind(file, behind, names):
                share = (done + number / total) / shards
                yield SourceStep(
                    self._what(shard, row), cursor=f"{shard.stem}/{number}", line=number, done=share
                )

    def _what(self, shard: Path, row: dict[str, Any]) -> Item | Reject:
        kept = {name: row[name] for name in _KEPT if row.get(name) is not None}
        if caption := kept.get("caption"):
            kept["caption"] = str(caption)[:_CAPTION]
        if self.by_url:
            return item_of_uri(str(row["url"]), metadata=kept)
        if row["status"] != "success":
            return Reject(f"not downloaded: {row.get('error_message') or row['status']}", str(row["url"]))
        for suffix in _SUFFIXES:
            path = shard.with_suffix("") / f"{row['key']}.{suffix}"
            if path.is_file():
                return item_of_file(path, metadata=kept)
        if shard.with_suffix(".tar").exists():
            return Reject(
                "the image is inside a tar; unpack it, or ask for --uri-column url", str(row["url"])
            )
        return Reject("the downloaded file is not there", str(row["url"]))

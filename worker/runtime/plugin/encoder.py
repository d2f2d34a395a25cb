"""From the tiles of a batch's images to rows of features. The host never waits for the GPU in here."""

from collections.abc import Callable, Iterable, Iterator, Sequence

import torch

from worker.runtime.plugin.feature_cache import FeatureCache
from worker.runtime.plugin.layout import Layout, Merge, layout, shrink
from worker.runtime.plugin.transport import SharedTiles

# (tiles, side, side, 3) uint8 and (3, 256) float16, both on the device, to (tiles, patches, channels).
Encode = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
Image = tuple[SharedTiles, tuple[int, int]]  # and its (width, height) in pixels


class Encoder:
    """Encodes the images of a batch together, each once, and remembers the last ones."""

    def __init__(
        self, encode: Encode, merge: Merge, newline: torch.Tensor, cache: FeatureCache, *, most_tiles: int
    ) -> None:
        self._encode = encode
        self._merge = merge
        self._newline = newline
        self._cache = cache
        self._most_tiles = most_tiles
        self._tables: dict[bytes, torch.Tensor] = {}

    def features(self, images: Sequence[Image]) -> dict[bytes, torch.Tensor]:
        """(tokens, channels) for each image, by its digest."""
        found: dict[bytes, torch.Tensor] = {}
        missing: dict[bytes, Image] = {}
        for tiles, size in images:
            known = self._cache.get(tiles.digest)
            if known is None:
                missing[tiles.digest] = (tiles, size)
            else:
                found[tiles.digest] = known
        for batch in _batches(missing.values(), self._most_tiles):
            for (tiles, _), features in zip(batch, self._together(batch), strict=True):
                self._cache.put(tiles.digest, features)
                found[tiles.digest] = features
        return found

    def _together(self, images: Sequence[Image]) -> list[torch.Tensor]:
        pixels = upload([torch.from_numpy(tiles.pixels) for tiles, _ in images], self._newline.device)
        encoded = self._encode(pixels, self._table(images[0][0]))
        rows = torch.cat((encoded.flatten(0, 1), self._newline[None]))
        layouts = [layout(size, self._merge) for _, size in images]
        firsts = [0]
        for tiles, _ in images:
            firsts.append(firsts[-1] + len(tiles) * encoded.shape[1])
        placed = list(zip(layouts, firsts, strict=False))
        plain = iter(_gathered(rows, [pair for pair in placed if pair[0].shrunk is None]))
        return [next(plain) if made.shrunk is None else self._shrunk(rows, made, at) for made, at in placed]

    def _shrunk(self, rows: torch.Tensor, made: Layout, first: int) -> torch.Tensor:
        assert made.shrunk is not None
        index = upload([(made.grid + first).flatten()], rows.device)
        grid = rows.index_select(0, index).view(*made.grid.shape, -1)
        return torch.cat((rows[first : first + len(made.whole)], shrink(grid, made.shrunk, self._newline)))

    def _table(self, tiles: SharedTiles) -> torch.Tensor:
        """On the device; there is one table for a server's life, two after a change of its processor."""
        key = tiles.table.tobytes()
        if key not in self._tables:
            self._tables[key] = torch.from_numpy(tiles.table.copy()).to(self._newline.device)
        return self._tables[key]


def upload(parts: Sequence[torch.Tensor], device: torch.device) -> torch.Tensor:
    """The parts one after the other, on the device: one copy into pinned memory, one asynchronous transfer."""
    if device.type != "cuda":
        return torch.cat(list(parts)).to(device)
    length = sum(len(part) for part in parts)
    staged = torch.empty((length, *parts[0].shape[1:]), dtype=parts[0].dtype, pin_memory=True)
    torch.cat(list(parts), out=staged)
    return staged.to(device, non_blocking=True)  # PyTorch keeps the pinned block until the transfer is over


def _gathered(rows: torch.Tensor, placed: Sequence[tuple[Layout, int]]) -> tuple[torch.Tensor, ...]:
    """The features of several images by one gather; the newline is the last row."""
    if not placed:
        return ()
    newline = len(rows) - 1
    indexes = [torch.where(made.rows < 0, newline, made.rows + first) for made, first in placed]
    gathered = rows.index_select(0, upload(indexes, rows.device))
    parts: tuple[torch.Tensor, ...] = gathered.split([len(index) for index in indexes])
    return parts


def _batches(images: Iterable[Image], most_tiles: int) -> Iterator[list[Image]]:
    """In order, each of at most most_tiles tiles or of a single image."""
    batch: list[Image] = []
    count = 0
    for image in images:
        if batch and count + len(image[0]) > most_tiles:
            yield batch
            batch, count = [], 0
        batch.append(image)
        count += len(image[0])
    if batch:
        yield batch

"""Parts of large pictures: a judge scales what it looks at down, until a small part cannot be made out."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil

from PIL import Image

_OVERLAP = 0.1  # of a tile's length, on either side: what lies on a seam is whole in one of two
_SMALL_SIDE = 2_000  # pixels of the longer side, below which judges see all there is
_WANTED_RATIO = 2.0  # of a tile's sides, where the number of tiles allows it


@dataclass(frozen=True)
class Tiling:
    """most: tiles of one picture, 0 for none. ratio: of its sides, from which on a picture is cut. pixels: or its size."""

    most: int
    ratio: float
    pixels: int

    def tiles(self, image: Image.Image) -> Iterator[tuple[str, Image.Image]]:
        """Parts that cover the picture, each with its view's name; none where it is not large."""
        columns, rows = self._grid(image.width, image.height)
        count = columns * rows
        if count <= 1:
            return
        for number in range(count):
            row, column = divmod(number, columns)
            left, right = _range(image.width, columns, column)
            top, bottom = _range(image.height, rows, row)
            yield f"tile {number + 1} of {count}", image.crop((left, top, right, bottom))

    def _grid(self, width: int, height: int) -> tuple[int, int]:
        ratio = max(width, height) / min(width, height)
        if self.most < 2 or max(width, height) < _SMALL_SIDE:
            return 1, 1
        if ratio >= self.ratio:
            count = min(self.most, ceil(ratio / _WANTED_RATIO))
            return (count, 1) if width > height else (1, count)
        if width * height >= self.pixels and self.most >= 4:
            return 2, 2
        return 1, 1


def _range(length: int, count: int, number: int) -> tuple[int, int]:
    part = length / count
    return max(0, int(part * (number - _OVERLAP))), min(length, ceil(part * (number + 1 + _OVERLAP)))

"""Cuts an image into the tiles that LLaVA-OneVision sees ("anyres"): the pixels of stock SGLang, as uint8.

Stock turns each tile into float16 by one map of single values, so it is enough to send the uint8 pixels and
apply that map on the GPU. Everything before it (which grid, resizing, padding) calls SGLang's own functions
in SGLang's order, so that the pixels cannot differ.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sglang.srt.multimodal.mm_utils import resize_and_pad_image, select_best_resolution


@dataclass(frozen=True, slots=True)
class Grid:
    """Which tilings there are: `resolutions` in (width, height) pixels, and the tile's side."""

    resolutions: tuple[tuple[int, int], ...]
    side: int

    def best(self, size: tuple[int, int]) -> tuple[int, int]:
        """The (width, height) in pixels to which an image of this (width, height) is fitted."""
        width, height = select_best_resolution(size, self.resolutions)
        return int(width), int(height)

    def tiles(self, size: tuple[int, int]) -> int:
        width, height = self.best(size)
        return 1 + (width // self.side) * (height // self.side)


def cut(image: Image.Image, grid: Grid, out: NDArray[np.uint8]) -> None:
    """Fill `out`, (tiles, side, side, 3): the whole image shrunk to one tile, then the grid row by row."""
    width, height = grid.best(image.size)
    side = grid.side
    padded = np.asarray(resize_and_pad_image(image, (width, height)))
    rows, columns = height // side, width // side
    as_grid = padded.reshape(rows, side, columns, side, 3).transpose(0, 2, 1, 3, 4)
    out[1:].reshape(rows, columns, side, side, 3)[...] = as_grid
    out[0] = np.asarray(image.resize((side, side)).convert("RGB"))


def shrunk(image: Image.Image, max_side_px: int) -> Image.Image:
    """The image with its longer side at most max_side_px; itself where that is 0 or already holds."""
    longer = max(image.size)
    if max_side_px == 0 or longer <= max_side_px:
        return image
    width, height = (max(1, round(edge * max_side_px / longer)) for edge in image.size)
    return image.resize((width, height))

"""In which order the tower's features stand in the prompt ("spatial_unpad"), as an index made once per image size.

Stock permutes, crops and concatenates the features of each image on the GPU. The same rows in the same order
are one gather, whose index depends only on the image's size; SGLang's own functions make that index.
"""

import math
import re
from dataclasses import dataclass
from functools import lru_cache

import torch
from sglang.srt.multimodal.mm_utils import get_anyres_image_grid_shape, unpad_image
from torch.nn.functional import interpolate


@dataclass(frozen=True, slots=True)
class Layout:
    """How one image size becomes rows of features.

    whole: (729,) rows of the first tile. grid: (height, width) rows of the other tiles, padding cropped.
    shrunk: the (height, width) to which a grid of too many tokens is interpolated, else None.
    """

    whole: torch.Tensor
    grid: torch.Tensor
    shrunk: tuple[int, int] | None

    @property
    def tokens(self) -> int:
        height, width = self.shrunk or self.grid.shape
        return len(self.whole) + height * (width + 1)

    @property
    def rows(self) -> torch.Tensor:
        """(tokens,) for a grid that is not shrunk; -1 is the newline at the end of each line."""
        newlines = torch.full((len(self.grid), 1), -1, dtype=self.grid.dtype)
        return torch.cat((self.whole, torch.cat((self.grid, newlines), dim=1).flatten()))


@dataclass(frozen=True, slots=True)
class Merge:
    """What of the model's configuration decides the layout."""

    resolutions: tuple[tuple[int, int], ...]
    tile_px: int
    patches: int  # along one side of a tile
    max_tiles: int | None  # of anyres_max_<n>: the grid is shrunk to this many tiles' tokens

    @classmethod
    def of(cls, aspect: str, resolutions: list[list[int]], tile_px: int, patches: int) -> "Merge":
        limit = re.match(r"anyres_max_(\d+)", aspect)
        pinpoints = tuple((int(width), int(height)) for width, height in resolutions)
        return cls(pinpoints, tile_px, patches, int(limit[1]) if limit else None)


@lru_cache(maxsize=4096)
def layout(size: tuple[int, int], merge: Merge) -> Layout:
    """For an image of this (width, height) in pixels."""
    columns, rows = get_anyres_image_grid_shape(size, list(merge.resolutions), merge.tile_px)
    per_tile = merge.patches**2
    grid = torch.arange(per_tile, (1 + rows * columns) * per_tile, dtype=torch.int64)
    grid = grid.view(rows, columns, merge.patches, merge.patches).transpose(1, 2)
    grid = grid.reshape(1, rows * merge.patches, columns * merge.patches)
    grid = unpad_image(grid, size)[0].contiguous()
    return Layout(torch.arange(per_tile, dtype=torch.int64), grid, _shrunk(grid, merge))


def _shrunk(grid: torch.Tensor, merge: Merge) -> tuple[int, int] | None:
    if merge.max_tiles is None:
        return None
    height, width = grid.shape
    times = math.sqrt(height * width / (merge.max_tiles * merge.patches**2))
    return (
        (int(height // times), int(width // times)) if times > 1.1 else None
    )  # 1.1: stock's and the training's


def shrink(grid: torch.Tensor, to: tuple[int, int], newline: torch.Tensor) -> torch.Tensor:
    """(height, width, channels) features to (tokens, channels), a newline at the end of each line."""
    height, width = to
    smaller = interpolate(grid.permute(2, 0, 1)[None], [height, width], mode="bilinear")[0]
    lines = torch.cat((smaller, newline[:, None, None].expand(-1, height, 1)), dim=-1)
    return lines.flatten(1, 2).transpose(0, 1)

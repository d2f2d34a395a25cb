"""The model's input number for each pixel value, taken from the image processor that stock SGLang uses."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image


class NotPointwise(Exception):
    """The image processor does more than map each value on its own, so a table cannot stand in for it."""


def pixel_table(image_processor: Any, side: int) -> NDArray[np.float16]:
    """(3, 256) float16, by asking the image processor itself.

    Checked on tiles of noise: the table must give what the processor gives, bit for bit.
    Raises NotPointwise if it does not.
    """
    ramp = np.arange(side * side * 3, dtype=np.uint32).reshape(side, side, 3)
    every_value = ((ramp // 3 + ramp % 3 * 85) % 256).astype(np.uint8)
    numbers = _processed(image_processor, every_value)
    table = np.zeros((3, 256), dtype=np.float16)
    for channel in range(3):
        table[channel, every_value[..., channel].ravel()] = numbers[channel].ravel()
    noise = np.random.default_rng(0).integers(0, 256, (2, side, side, 3), dtype=np.uint8)
    for tile in (every_value, *noise):
        looked_up = np.stack([table[c][tile[..., c]] for c in range(3)])
        if not np.array_equal(looked_up.view(np.uint16), _processed(image_processor, tile).view(np.uint16)):
            raise NotPointwise(f"{type(image_processor).__name__} is not a map of single values")
    return table


def _processed(image_processor: Any, tile: NDArray[np.uint8]) -> NDArray[np.float16]:
    """(3, side, side) float16: what stock makes of one RGB tile."""
    values = image_processor.preprocess(Image.fromarray(tile))["pixel_values"][0]
    numbers = np.asarray(values).astype(np.float16)
    if numbers.shape != (3, *tile.shape[:2]):
        raise NotPointwise(f"{tile.shape} became {numbers.shape}")
    return np.ascontiguousarray(numbers)

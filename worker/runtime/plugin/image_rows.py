"""Which rows of a prefill batch belong to which image, told from what the host already knows.

Stock reads the same from the GPU, which waits for all work queued there.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from worker.runtime.plugin.transport import SharedTiles


@dataclass(frozen=True, slots=True)
class ImageRows:
    """Rows [row, row + length) of the batch take features [first, first + length) of this image."""

    tiles: SharedTiles
    size: tuple[int, int]  # of the image, (width, height) in pixels
    tokens: int  # of the whole image, as the scheduler counted them
    row: int
    first: int
    length: int


class NotOurs(Exception):
    """An image in the batch came from another processor, or in another way than one to a request."""


def image_rows(batch: Any) -> list[ImageRows]:
    """Of every image that this batch covers at least in part. Raises NotOurs."""
    return list(_spans(batch))


def _spans(batch: Any) -> Iterator[ImageRows]:
    start = 0
    lengths = batch.extend_seq_lens_cpu
    every = batch.mm_inputs or [None] * len(lengths)
    for inputs, prefix, length in zip(every, batch.extend_prefix_lens_cpu, lengths, strict=True):
        if inputs is not None and getattr(inputs, "image_offsets", None):
            span = _span(inputs, start, prefix, length)
            if span.length > 0:
                yield span
        start += length


def _span(inputs: Any, start: int, prefix: int, length: int) -> ImageRows:
    if len(inputs.mm_items) != 1 or len(inputs.image_offsets) != 1:
        raise NotOurs
    item, offset, tokens = inputs.mm_items[0], inputs.image_offsets[0], inputs.image_pad_len[0]
    begin, end = max(offset, prefix), min(offset + tokens, prefix + length)
    if end > begin and not isinstance(item.feature, SharedTiles):
        raise NotOurs
    size = tuple(item.image_sizes[0])
    return ImageRows(item.feature, size, tokens, start + begin - prefix, begin - offset, end - begin)

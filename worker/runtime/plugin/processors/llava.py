"""The image processor that stands in for SGLang's own: threads instead of processes, uint8 tiles, one hash.

Stock pickles its whole tokenizer (5.4 MB) for every image into a process pool, and sends float16 numbers that
the scheduler hashes. This one sends the uint8 pixels and the digest of the image's bytes.
"""

import asyncio
import hashlib
import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pybase64
from PIL import Image
from sglang.srt.managers.schedule_batch import Modality, MultimodalDataItem, MultimodalProcessorOutput
from sglang.srt.models.llava import LlavaQwenForCausalLM
from sglang.srt.models.registry import ModelRegistry
from sglang.srt.multimodal.processors.llava import LlavaImageProcessor
from sglang.srt.utils import ImageData, load_image

from worker.runtime.plugin.pixel_table import NotPointwise, pixel_table
from worker.runtime.plugin.settings import PluginSettings
from worker.runtime.plugin.tiles import Grid, cut, shrunk
from worker.runtime.plugin.transport import SharedTiles, TileOutbox, shares_memory_with_children

log = logging.getLogger(__name__)

# What a file that is no image, or a broken one, makes Pillow raise.
UNDECODABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)


class LlavaTileProcessor(LlavaImageProcessor):  # type: ignore[misc]  # SGLang ships no types
    """One image a request under an anyres configuration; anything else goes to the stock processor."""

    models = [LlavaQwenForCausalLM]  # noqa: RUF012  # SGLang's own form

    def __init__(self, hf_config: Any, server_args: Any, _processor: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(hf_config, server_args, _processor, *args, **kwargs)
        self._settings = PluginSettings.read()
        self._aspect = str(getattr(hf_config, "image_aspect_ratio", ""))
        self._tiler = self._make_tiler(hf_config, server_args, _processor)
        threads = self._settings.image_threads or max(2, (os.cpu_count() or 4) // 2)
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="vetline-tiles")

    def _make_tiler(self, hf_config: Any, server_args: Any, processor: Any) -> "Tiler | None":
        """None, with a warning, where this configuration is not the one that the fast path is exact for."""
        try:
            image_processor = processor.image_processor
            grid = Grid(_resolutions(hf_config), image_processor.size["height"])
            if not self._aspect.startswith("anyres"):
                raise NotPointwise(f"image_aspect_ratio {self._aspect!r} has no tiles")
            table = pixel_table(image_processor, grid.side)
        except (NotPointwise, AttributeError, KeyError, TypeError, ValueError) as error:
            log.warning("Vetline's image processor does not fit here, the stock one is used: %r", error)
            return None
        shared = getattr(server_args, "tp_size", 1) == 1 and shares_memory_with_children()
        if not shared:
            log.warning("Vetline sends tiles inside messages: shared memory cannot be used here.")
        outbox = TileOutbox(shared=shared)
        return Tiler(grid, table, outbox, max_side_px=self._settings.max_image_side_px)

    async def process_mm_data_async(
        self, image_data: list[Any], input_text: Any, request_obj: Any, *args: Any, **kwargs: Any
    ) -> Any:
        """SGLang's interface. Raises ValueError (HTTP 400) for bytes that are no image."""
        tiler = self._tiler
        if tiler is None or not _is_one_image(image_data, request_obj):
            return await super().process_mm_data_async(image_data, input_text, request_obj, *args, **kwargs)
        loop = asyncio.get_running_loop()
        job = loop.run_in_executor(self._threads, tiler.tile, image_data[0])
        tiles, size = await asyncio.wait_for(job, self._settings.image_timeout_s)
        described = {"image_sizes": [size], "image_aspect_ratio": self._aspect}
        item = MultimodalDataItem(
            modality=Modality.IMAGE,
            hash=int.from_bytes(tiles.digest[:8], "big"),
            feature=tiles if _our_model_is_served() else tiles.normalised(),
            model_specific_data=described,
        )
        return MultimodalProcessorOutput(mm_items=[item])


class Tiler:
    """Turns what a request holds as its image into tiles. Thread-safe."""

    def __init__(self, grid: Grid, table: Any, outbox: TileOutbox, *, max_side_px: int) -> None:
        self._grid = grid
        self._table = table
        self._outbox = outbox
        self._max_side_px = max_side_px

    def tile(self, source: Any) -> tuple[SharedTiles, tuple[int, int]]:
        """The tiles, and the (width, height) of the image that they were cut from. Raises ValueError."""
        try:
            data = _inline_bytes(source)
            image, _ = load_image(source if data is None else data, False)
            image = shrunk(image, self._max_side_px)
            digest = self._digest(data if data is not None else image.tobytes())
            shape = (self._grid.tiles(image.size), self._grid.side, self._grid.side, 3)
            fill: Callable[[Any], None] = lambda out: cut(image, self._grid, out)  # noqa: E731  # one use
            return self._outbox.put(shape, digest, self._table, fill=fill), image.size
        except UNDECODABLE as error:
            raise ValueError(f"Error while processing image: {error}") from error

    def _digest(self, data: bytes) -> bytes:
        """Of the bytes and of how they become pixels, so that a changed setting never finds old features."""
        return hashlib.sha256(self._max_side_px.to_bytes(4, "big") + data).digest()


def _resolutions(hf_config: Any) -> tuple[tuple[int, int], ...]:
    pinpoints = hf_config.image_grid_pinpoints
    if not isinstance(pinpoints, list):
        raise TypeError(f"image_grid_pinpoints is {type(pinpoints).__name__}, not a list")
    return tuple((int(width), int(height)) for width, height in pinpoints)


def _is_one_image(image_data: Any, request: Any) -> bool:
    """Stock treats several images, video and precomputed features in other ways."""
    plain = isinstance(image_data, list) and len(image_data) == 1
    modalities = getattr(request, "modalities", None) or ["image"]
    return plain and isinstance(image_data[0], str | bytes | ImageData) and modalities == ["image"]


def _inline_bytes(source: Any) -> bytes | None:
    """The encoded image where the request holds it; None for a path or an address."""
    held = source.url if isinstance(source, ImageData) else source
    if isinstance(held, bytes):
        return held
    if isinstance(held, str) and held.startswith("data:"):
        decoded: bytes = pybase64.b64decode(held.partition(",")[2], validate=True)
        return decoded
    return None


def _our_model_is_served() -> bool:
    """Stock's model class needs float16 arrays; only ours takes SharedTiles."""
    served = ModelRegistry.models.get("LlavaQwenForCausalLM")
    return served is not None and served.__module__.startswith("worker.runtime.plugin.")

"""Bytes to RGB stills: opened, bounded, framed, turned upright, flattened. Runs in a decoder child only."""

import warnings
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from itertools import chain

from PIL import AvifImagePlugin, Image, ImageCms

from intake.bmp import BmpFile
from intake.bounded import bounded
from intake.colours import PROFILE_UNREADABLE, Colour, from_ink, honoured
from intake.difference import mean_difference
from intake.formats import DECODERS
from intake.frame_choice import chosen
from intake.gif import GifFile
from intake.heif_files import AvifFile, HeifFile
from intake.jpeg import JpegFile
from intake.opened import Opened
from intake.png_file import PngFile
from intake.samples import to_eight_bits
from intake.tiff import TiffFile
from intake.tiles import Tiling
from intake.transparency import flatten
from intake.turns import turned
from intake.webp import WebpFile

_FILES: dict[str, type[Opened]] = {
    file.decoder: file
    for file in (AvifFile, BmpFile, GifFile, HeifFile, JpegFile, PngFile, TiffFile, WebpFile)
}

# Modes whose samples are RGB, or become it by a formula that all readers share.
_DIRECT = frozenset({"RGB", "RGBA", "L", "LA", "1", "P", "PA", "YCbCr", "HSV", "RGBX", "La", "RGBa"})

Named = tuple[str, Image.Image]


class PixelLimitError(Exception):
    """More pixels or frames than the limit."""


class NoDecoderError(Exception):
    """No decoder for this type is installed."""


@dataclass(frozen=True)
class DecodeLimits:
    """See DecodeSettings."""

    max_pixels: int
    max_frames: int
    max_total_pixels: int
    frames_judged: int
    tiles: int = 0
    tile_ratio: float = 4.0
    tile_pixels: int = 30_000_000

    @property
    def tiling(self) -> Tiling:
        return Tiling(self.tiles, self.tile_ratio, self.tile_pixels)


@dataclass(frozen=True)
class Still:
    """One RGB view. plain: every decoder makes exactly this of the original bytes.

    distance: from the first view of the same frame, in levels of 255; None where this is the first, or shows a part.
    """

    name: str
    image: Image.Image
    plain: bool = False
    distance: float | None = None


def prepare(max_pixels: int) -> None:
    """Set what Pillow keeps in globals, and load whatever decoding may need: no file can be opened later."""
    Image.MAX_IMAGE_PIXELS = max_pixels
    warnings.simplefilter("ignore")
    warnings.simplefilter("error", Image.DecompressionBombWarning)  # also for frames found by seeking
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # there are as many children as cores
    for plugin in ("Bmp", "Gif", "Mpo", "Png", "Tiff", "WebP"):
        import_module(f"PIL.{plugin}ImagePlugin")
    for codec in ("ascii", "latin_1", "utf_16", "utf_16_be", "utf_16_le"):
        import_module(f"encodings.{codec}")
    Image.preinit()
    with suppress(ImportError):
        import_module("pillow_heif").register_heif_opener()


def open_image(data: bytes, media_type: str, limits: DecodeLimits) -> Opened:
    """The file, its header read but no pixels. Raises PixelLimitError, NoDecoderError."""
    decoder = DECODERS[media_type]
    if decoder not in Image.OPEN:
        raise NoDecoderError(f"{media_type} is not judged here: its decoder is not installed")
    try:
        file = _FILES[decoder](data)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise PixelLimitError(f"more than {limits.max_pixels} pixels") from None
    pixels = file.width * file.height
    if pixels > limits.max_pixels:
        raise PixelLimitError(f"more than {limits.max_pixels} pixels")
    if file.frames > limits.max_frames or (
        file.frames > 1 and file.frames * pixels > limits.max_total_pixels
    ):
        raise PixelLimitError(f"{file.frames} frames of {file.width}x{file.height}")
    return file


def stills(file: Opened, limits: DecodeLimits, *, original: bool = True) -> Iterator[Still]:
    """The views of a file, one frame after another, so that few of them are in memory at once.

    original: the file is as it came, so that it may be passed on.
    """
    for index in chosen(file.frames, limits.frames_judged, file.durations_ms, file.always):
        image = file.still(index)
        if file.frames > 1:
            yield from _compared(_views(image, file), f"frame {index}")
            continue
        plain = original and file.is_plain()
        first: Image.Image | None = None
        for still in _compared(chain(_views(image, file), _further(file)), "", plain=plain):
            first = first or still.image
            yield still
        assert first is not None, "an image has a view"
        for name, part in limits.tiling.tiles(first):
            yield Still(name, part)


def _compared(views: Iterator[Named], prefix: str, *, plain: bool = False) -> Iterator[Still]:
    first: Image.Image | None = None
    for name, image in views:
        full_name = " ".join(part for part in (prefix, name) if part) or "whole"
        yield Still(full_name, image, plain and first is None, _distance(first, image, name))
        first = first or image


def _distance(first: Image.Image | None, image: Image.Image, name: str) -> float | None:
    if first is None or name.endswith(_AS_STORED):
        return None  # the same picture, turned
    if first.size != image.size:
        first = first.resize(image.size, Image.Resampling.BOX)
    return mean_difference(first, image)


_AS_STORED = "as stored"


def _views(image: Image.Image, file: Opened) -> Iterator[Named]:
    """What viewers show of one frame, RGB: first what most do, the colours as they are stored."""
    for name, reading in _readings(to_eight_bits(image), file):
        for number, turn in enumerate(file.turns):
            upright = turned(bounded(reading) if name or number else reading, turn)
            pages = flatten(upright) if upright.mode == "RGBA" else iter([("", upright)])
            del upright
            for page, flat in pages:
                yield " ".join(part for part in (page, name, _AS_STORED if number else "") if part), flat


def _further(file: Opened) -> Iterator[Named]:
    for name, image in file.further():
        yield name, turned(image, file.turns[0])


def _readings(image: Image.Image, file: Opened) -> Iterator[Named]:
    """RGB or RGBA: as stored, and by the file's profile where that is much different."""
    if image.mode in ("CMYK", "LAB"):
        yield from _ink(image, file.colour)
        return
    if image.mode not in _DIRECT:
        raise ValueError(f"pixels of mode {image.mode}")
    yield "", _to_rgb(image)
    try:
        shown = honoured(_narrowed(image), file.colour)
    except ImageCms.PyCMSError:
        file.marks = (*file.marks, PROFILE_UNREADABLE)
        return
    if shown is not None:
        yield file.colour.name, shown


def _ink(image: Image.Image, colour: Colour) -> Iterator[Named]:
    try:
        yield from from_ink(image, colour)
    except ImageCms.PyCMSError:
        if image.mode == "LAB":
            raise
        yield "", image.convert("RGB")


def _to_rgb(image: Image.Image) -> Image.Image:
    mode = "RGBA" if image.has_transparency_data else "RGB"
    return image if image.mode == mode else image.convert(mode)


def _narrowed(image: Image.Image) -> Image.Image:
    """One of the modes that `honoured` takes."""
    if image.mode in ("L", "LA") and "transparency" not in image.info:
        return image
    return image.convert("L") if image.mode == "1" else _to_rgb(image)

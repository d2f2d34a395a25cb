"""Bytes to RGB stills: opened, bounded, framed, turned upright, flattened. Runs in a decoder child only."""

import warnings
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from io import BytesIO

from PIL import AvifImagePlugin, ExifTags, Image, JpegImagePlugin

from intake.colours import adjustment, to_rgb
from intake.formats import DECODERS

# Formats whose frames people see one after another, or page by page. A multi-picture JPEG's further ones are
# previews and depth maps, which viewers do not show.
_ANIMATED = frozenset({"GIF", "WEBP", "PNG", "AVIF", "TIFF", "HEIF"})

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


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


@dataclass(frozen=True)
class Still:
    """One RGB view. plain: every decoder makes exactly this of the original bytes."""

    name: str
    image: Image.Image
    plain: bool


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


def open_image(data: bytes, media_type: str, limits: DecodeLimits) -> tuple[Image.Image, int]:
    """The image, its header read but no pixels, and its frames. Raises PixelLimitError, NoDecoderError."""
    decoder = DECODERS[media_type]
    if decoder not in Image.OPEN:
        raise NoDecoderError(f"{media_type} is not judged here: its decoder is not installed")
    try:
        image = Image.open(BytesIO(data), formats=[decoder])
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise PixelLimitError(f"more than {limits.max_pixels} pixels") from None
    pixels = image.width * image.height
    if pixels > limits.max_pixels:
        raise PixelLimitError(f"more than {limits.max_pixels} pixels")
    frames = _count_frames(image)
    if frames > limits.max_frames or (frames > 1 and frames * pixels > limits.max_total_pixels):
        raise PixelLimitError(f"{frames} frames of {image.width}x{image.height}")
    return image, frames


def stills(image: Image.Image, data: bytes, *, frames: int, frames_judged: int) -> Iterator[Still]:
    """The views of an image, one at a time, so that few of them are in memory at once."""
    for index in _chosen(frames, frames_judged):
        if frames > 1:
            image.seek(index)
        image.load()
        yield from _views(
            image,
            f"frame {index}" if frames > 1 else "",
            plain=frames == 1 and _is_plain(image, data),
        )


def _count_frames(image: Image.Image) -> int:
    if image.format not in _ANIMATED:
        return 1
    return max(1, int(getattr(image, "n_frames", 1)))


def _chosen(frames: int, wanted: int) -> list[int]:
    """Evenly spaced indices, the first and the last among them."""
    if frames <= wanted:
        return list(range(frames))
    return sorted({round(step * (frames - 1) / max(wanted - 1, 1)) for step in range(wanted)})


def _views(image: Image.Image, prefix: str, *, plain: bool) -> Iterator[Still]:
    adjusted = adjustment(image.info)
    for name, view in to_rgb(_upright(image)):
        yield Still(_name(prefix, name), view, plain)
        if adjusted is not None:
            how, apply = adjusted
            yield Still(_name(prefix, name, how), apply(view), plain=False)


def _name(*parts: str) -> str:
    return " ".join(part for part in parts if part) or "whole"


def _upright(image: Image.Image) -> Image.Image:
    turn = _UPRIGHT.get(_orientation(image))
    return image if turn is None else image.transpose(turn)


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8, or 0 where there is none that can be read. A damaged block is none."""
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 0)
    except Exception:  # noqa: BLE001 - a stranger's EXIF block makes Pillow raise nearly anything
        return 0
    return value if isinstance(value, int) else 0


def _is_plain(image: Image.Image, data: bytes) -> bool:
    """Whether the bytes may go to a judge as they are: RGB, 8 bits, upright, opaque, and read by all.

    Greyscale is not: what decoders make of one channel differs. Nor is a PNG of 16 bits, or a JPEG that holds
    RGB without a transform, which decoders on a GPU take for YCbCr.
    """
    if image.mode != "RGB" or image.has_transparency_data or _orientation(image) > 1:
        return False
    if isinstance(image, JpegImagePlugin.JpegImageFile):
        return image.info.get("adobe_transform") != 0 and bytes(layer[0] for layer in image.layer) != b"RGB"
    if image.format == "PNG":
        return data[12:16] == b"IHDR" and data[24:26] == b"\x08\x02"
    return image.format == "WEBP"

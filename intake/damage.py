"""Damaged files that browsers show all the same, whole or in part. Runs in a decoder child only.

What is whole but for its seal is mended and judged. What is shown in part is refused under a code of its own.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO

from PIL import Image, ImageChops, ImageFile

from intake import png, webp
from intake.formats import DECODERS

_END_OF_IMAGE = b"\xff\xd9"
_FILLING = (128, 128, 128)
_BMP_HEAD_BYTES = 14 + 40
_LAST_ROWS = 32  # of a JPEG: two rows of its largest blocks, which a decoder holds back until it sees the end
_PIXEL_CHUNKS = frozenset({b"VP8 ", b"VP8L", b"ANMF"})


@contextmanager
def tolerated() -> Iterator[None]:
    """Let Pillow show what it has of a file that ends too early."""
    ImageFile.LOAD_TRUNCATED_IMAGES = True
    try:
        yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = False


def mended(data: bytes, media_type: str) -> bytes | None:
    """The file with right checksums, or its end; None where that does not help."""
    if media_type == "image/png":
        sealed = png.sealed(data)
        return sealed if sealed != data else None
    if media_type == "image/jpeg" and _missing_rows(data) <= _LAST_ROWS:
        return data + _END_OF_IMAGE
    return None


def may_be_shown(data: bytes, media_type: str) -> bool:
    """Whether a browser may show something of a file that cannot be decoded as a whole."""
    if media_type in ("image/avif", "image/heif"):
        return b"mdat" in data and b"meta" in data
    if media_type == "image/bmp":
        return len(data) > _BMP_HEAD_BYTES
    if media_type == "image/webp":
        return any(kind in _PIXEL_CHUNKS for kind, _, _ in webp.chunks(data))
    if media_type == "image/jpeg":
        return _missing_rows(data) < _height(data)
    with tolerated(), Image.open(BytesIO(data), formats=[DECODERS[media_type]]) as image:
        image.load()
    return True


def _missing_rows(data: bytes) -> int:
    """Rows at the end that no data came for: libjpeg fills them with grey, exactly."""
    with tolerated(), Image.open(BytesIO(data), formats=["JPEG"]) as image:
        image.load()
        filling = Image.new("RGB", image.size, _FILLING)
        box = ImageChops.difference(image.convert("RGB"), filling).getbbox()
        return image.height - (box[3] if box else 0)


def _height(data: bytes) -> int:
    with Image.open(BytesIO(data), formats=["JPEG"]) as image:
        return image.height

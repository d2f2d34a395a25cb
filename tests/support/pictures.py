"""Pictures for tests: drawn here, encoded in many ways, damaged on purpose."""

import io
import struct
import zlib
from collections.abc import Iterable
from typing import Any

from PIL import ExifTags, Image

RED, GREEN, BLUE, YELLOW = (220, 20, 20), (20, 180, 20), (20, 20, 220), (230, 220, 20)

# Where the four colours of `quarters` lie when it is upright.
UPRIGHT = [RED, GREEN, BLUE, YELLOW]  # top left, top right, bottom left, bottom right


def quarters(size: tuple[int, int] = (96, 64)) -> Image.Image:
    """Four quarters in four colours, wider than high, so that no turn or flip of it looks like another."""
    width, height = size
    image = Image.new("RGB", size)
    for number, colour in enumerate(UPRIGHT):
        left, top = (number % 2) * width // 2, (number // 2) * height // 2
        image.paste(colour, (left, top, left + width // 2, top + height // 2))
    return image


def corners(width: int, height: int, rgb: bytes) -> list[tuple[int, ...]]:
    """The colours in the middle of the four quarters of RGB rows."""
    image = Image.frombytes("RGB", (width, height), rgb)
    places = [(w, h) for h in (height // 4, 3 * height // 4) for w in (width // 4, 3 * width // 4)]
    return [image.getpixel(place) for place in places]  # type: ignore[misc]  # RGB pixels are tuples


def near(seen: Iterable[tuple[int, ...]], wanted: Iterable[tuple[int, ...]], within: int = 24) -> bool:
    """Whether colours are the same but for what lossy formats do to them."""
    return all(
        abs(a - b) <= within
        for one, two in zip(seen, wanted, strict=True)
        for a, b in zip(one, two, strict=True)
    )


def encode(image: Image.Image, format_: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format_, **options)
    return file.getvalue()


_AS_STORED = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def turned(orientation: int, format_: str) -> bytes:
    """`quarters` as a camera stores it that was held in this EXIF orientation."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    turn = _AS_STORED[orientation]
    image = quarters() if turn is None else quarters().transpose(turn)
    return encode(image, format_, exif=exif, **({"quality": 95} if format_ != "PNG" else {}))


def animation(frames: int, format_: str, **options: Any) -> bytes:
    """Frame n is plain grey of level n * 255 / (frames - 1)."""
    stills = [Image.new("RGB", (32, 32), (n * 255 // max(frames - 1, 1),) * 3) for n in range(frames)]
    return encode(stills[0], format_, save_all=True, append_images=stills[1:], **options)


def chunk(kind: bytes, data: bytes) -> bytes:
    """One chunk of a PNG file."""
    return struct.pack("!I", len(data)) + kind + data + struct.pack("!I", zlib.crc32(kind + data))


def png(
    width: int, height: int, *more: bytes, bits: int = 1, colour: int = 0, rows: bytes | None = None
) -> bytes:
    """A PNG by hand: black unless rows are given, with more chunks before its pixels."""
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    if rows is None:
        line = bytes(1 + (width * bits * channels + 7) // 8)
        packer = zlib.compressobj(9)
        rows = b"".join([*(packer.compress(line) for _ in range(height)), packer.flush()])
    header = struct.pack("!IIBBBBB", width, height, bits, colour, 0, 0, 0)
    parts = (chunk(b"IHDR", header), *more, chunk(b"IDAT", rows), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def chunks(png_bytes: bytes) -> list[bytes]:
    """The kinds of a PNG's chunks."""
    kinds, at = [], 8
    while at < len(png_bytes):
        (length,) = struct.unpack("!I", png_bytes[at : at + 4])
        kinds.append(png_bytes[at + 4 : at + 8])
        at += 12 + length
    return kinds


def gif_of_many_frames(frames: int, size: tuple[int, int]) -> bytes:
    """A small file of many full frames: each is the same few bytes."""
    file = encode(Image.new("P", size), "GIF")
    start = file.index(b"\x2c")  # the image descriptor
    head, frame = file[:start], file[start:-1]
    return head + frame * frames + b";"


def cyclic_tiff(pages: int) -> bytes:
    """A TIFF whose directories lead to one another in a ring."""
    entry = struct.pack("<HHII", 256, 4, 1, 1)
    size = 2 + len(entry) + 4
    offsets = [8 + size * number for number in range(pages)]
    body = b"".join(
        struct.pack("<H", 1) + entry + struct.pack("<I", offsets[(number + 1) % pages])
        for number in range(pages)
    )
    return b"II*\0" + struct.pack("<I", 8) + body


def deep_tiff(pages: int) -> bytes:
    """A TIFF of many tiny pages, each with a directory of its own."""
    return encode(
        Image.new("L", (1, 1)), "TIFF", save_all=True, append_images=[Image.new("L", (1, 1))] * (pages - 1)
    )

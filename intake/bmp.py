"""A BMP as browsers show it: with the alpha mask of newer headers, see-through where a run skips, by its profile."""

import struct
from dataclasses import dataclass

from PIL import Image, ImageChops

from intake import colours, icc
from intake.colour_space import Point, of_curve, power
from intake.colours import PLAIN, Colour
from intake.opened import Opened
from intake.transparency import with_holes

_FILE_HEAD_BYTES = 14
_V3, _V4, _V5 = 56, 108, 124  # headers that have an alpha mask; colours by numbers; a profile
_RGB, _RLE8, _RLE4, _BITFIELDS, _ALPHA_BITFIELDS = 0, 1, 2, 3, 6
_CALIBRATED, _EMBEDDED = 0, 0x4D424544

Masks = tuple[int, int, int, int]  # red, green, blue, alpha


class BmpError(ValueError):
    """A header that is cut off."""


@dataclass(frozen=True)
class _BmpHeader:
    size: int
    width: int
    height: int
    upright: bool  # rows are stored from the bottom
    bits: int
    compression: int
    pixels_at: int
    masks: Masks | None


class BmpFile(Opened):
    decoder = "BMP"

    def __init__(self, data: bytes) -> None:
        self._header = _read_header(data)
        super().__init__(data)
        if self._header.masks is not None:
            self.width, self.height = self._header.width, self._header.height
        self.colour = colours.suiting("RGB", _colour(data, self._header.size))
        self.marks = (self.colour.mark,) if self.colour.mark else ()

    def open(self, data: bytes) -> Image.Image:
        """Nothing of Pillow's where there are masks: it knows a few of them only."""
        if self._header.masks is not None:
            return Image.new("RGB", (1, 1))
        return super().open(data)

    def still(self, index: int) -> Image.Image:
        header = self._header
        if header.compression in (_RLE8, _RLE4):
            return self._of_runs(header)
        if header.masks is not None:
            return self._of_masks(header, header.masks)
        return super().still(index)

    def _of_masks(self, header: _BmpHeader, masks: Masks) -> Image.Image:
        """RGBA; RGB where the alpha channel is empty, which viewers take for a channel that nobody filled."""
        mode, count = ("RGBA", 4) if header.bits == 32 else ("LA", 2)
        stride = (header.bits * header.width + 31) // 32 * 4
        rows = self.data[header.pixels_at : header.pixels_at + stride * header.height]
        order = -1 if header.upright else 1
        stored = Image.frombytes(mode, (header.width, header.height), rows, "raw", mode, stride, order)
        planes = stored.split()[:count]
        bands = [_band(planes, mask) for mask in masks]
        if not masks[3] or bands[3].getextrema()[1] == 0:
            return Image.merge("RGB", bands[:3])
        return Image.merge("RGBA", bands)

    def _of_runs(self, header: _BmpHeader) -> Image.Image:
        """Pixels that runs skip are see-through."""
        levels, covered = _Runs(self.data, header).draw()
        image = super().still(0)  # for its palette
        size, order = (header.width, header.height), -1 if header.upright else 1
        drawn = Image.frombytes("P", size, bytes(levels), "raw", "P", 0, order)
        if image.mode == "P":
            drawn.putpalette(image.getpalette() or [])
        else:  # a palette of greys
            drawn = Image.frombytes("L", size, bytes(levels), "raw", "L", 0, order)
        if 0 not in covered:
            return drawn.convert("RGB")
        holes = Image.frombytes("L", size, bytes(covered), "raw", "L", 0, order)
        return with_holes(drawn, holes.point([255, *[0] * 255]))


def _read_header(data: bytes) -> _BmpHeader:
    try:
        (pixels_at, size) = struct.unpack_from("<II", data, 10)
        if size < 40:
            width, height, _, bits = struct.unpack_from("<HHHH", data, 18)
            return _BmpHeader(size, width, height, True, bits, _RGB, pixels_at, None)
        width, height, _, bits, compression = struct.unpack_from("<iiHHI", data, 18)
        header = _BmpHeader(size, width, abs(height), height > 0, bits, compression, pixels_at, None)
        masks = _masks(data, header)
    except struct.error as error:
        raise BmpError("a header that is cut off") from error
    return _BmpHeader(size, width, abs(height), height > 0, bits, compression, pixels_at, masks)


def _masks(data: bytes, header: _BmpHeader) -> Masks | None:
    """Of pixels of 16 or 32 bits; None where there are none, or they hold no alpha."""
    if header.bits not in (16, 32):
        return None
    at = _FILE_HEAD_BYTES + 40  # after the oldest header, or in a newer one: the same place
    if header.compression in (_BITFIELDS, _ALPHA_BITFIELDS):
        has_alpha = header.size >= _V3 or header.compression == _ALPHA_BITFIELDS
        red, green, blue = struct.unpack_from("<III", data, at)
        return red, green, blue, struct.unpack_from("<I", data, at + 12)[0] if has_alpha else 0
    if header.compression == _RGB and header.bits == 32 and header.size >= _V4:
        return 0xFF0000, 0xFF00, 0xFF, struct.unpack_from("<I", data, at + 12)[0]
    return None


def _band(planes: tuple[Image.Image, ...], mask: int) -> Image.Image:
    """L: one channel, put together from what each byte of a pixel holds of it."""
    bits = [bit for bit in range(8 * len(planes)) if mask >> bit & 1]
    if not bits:
        return Image.new("L", planes[0].size)
    whole = 2 ** len(bits) - 1
    total: Image.Image | None = None
    for number, plane in enumerate(planes):
        weights = [
            (bit - 8 * number, 2**place)
            for place, bit in enumerate(bits)
            if 8 * number <= bit < 8 * number + 8
        ]
        if not weights:
            continue
        table = [sum(weight for bit, weight in weights if level >> bit & 1) for level in range(256)]
        part = plane.convert("L").point([255 * value // whole for value in table])
        total = part if total is None else ImageChops.add(total, part)
    assert total is not None, "a mask's bits lie within a pixel"
    return total


class _Runs:
    """RLE8 and RLE4: runs and literal pixels, with jumps that leave pixels out."""

    def __init__(self, data: bytes, header: _BmpHeader) -> None:
        self._data = data
        self._at = header.pixels_at
        self._width, self._height = header.width, header.height
        self._four = header.compression == _RLE4
        self._levels = bytearray(header.width * header.height)
        self._covered = bytearray(header.width * header.height)

    def draw(self) -> tuple[bytearray, bytearray]:
        """Palette indices and whether each pixel was drawn, in rows from the bottom."""
        x = y = 0
        try:
            while y < self._height:
                count, value = self._take(), self._take()
                if count:
                    x = self._put(x, y, self._repeated(value, count))
                elif value == 0:
                    x, y = 0, y + 1
                elif value == 1:
                    break
                elif value == 2:
                    x, y = x + self._take(), y + self._take()
                else:
                    x = self._put(x, y, self._literal(value))
        except IndexError:
            pass  # cut off: what was drawn is shown
        return self._levels, self._covered

    def _put(self, x: int, y: int, pixels: bytes) -> int:
        pixels = pixels[: max(self._width - x, 0)]
        start = y * self._width + x
        self._levels[start : start + len(pixels)] = pixels
        self._covered[start : start + len(pixels)] = b"\1" * len(pixels)
        return x + len(pixels)

    def _repeated(self, value: int, count: int) -> bytes:
        if self._four:
            return (bytes((value >> 4, value & 15)) * (count // 2 + 1))[:count]
        return bytes((value,)) * count

    def _literal(self, count: int) -> bytes:
        size = (count + 1) // 2 if self._four else count
        stored = self._data[self._at : self._at + size]
        self._at += size + size % 2
        if self._four:
            return bytes(half for value in stored for half in (value >> 4, value & 15))[:count]
        return stored

    def _take(self) -> int:
        self._at += 1
        return self._data[self._at - 1]


def _colour(data: bytes, header_size: int) -> Colour:
    """A V5 header's embedded profile, or a V4's own primaries and gamma."""
    if header_size < _V4:
        return PLAIN
    (space,) = struct.unpack_from("<I", data, _FILE_HEAD_BYTES + 56)
    if space == _EMBEDDED and header_size >= _V5:
        offset, size = struct.unpack_from("<II", data, _FILE_HEAD_BYTES + 112)
        return colours.of_profile(data[_FILE_HEAD_BYTES + offset : _FILE_HEAD_BYTES + offset + size])
    if space == _CALIBRATED:
        return _calibrated(
            struct.unpack_from("<9i", data, _FILE_HEAD_BYTES + 60),
            *struct.unpack_from("<3I", data, _FILE_HEAD_BYTES + 96),
        )
    return PLAIN


def _calibrated(ends: tuple[int, ...], *gammas: int) -> Colour:
    """ends: XYZ of red, green and blue, fixed-point with 30 bits. gammas: with 16 bits; one curve serves all."""
    values = [end / 2**30 for end in ends]
    exponent = gammas[1] / 65536
    if exponent <= 0 or not any(values):
        return PLAIN
    matrix = tuple(tuple(values[row + 3 * column] for column in range(3)) for row in range(3))
    white = tuple(sum(row) for row in matrix)
    if min(white) <= 0:
        return PLAIN
    points: list[Point] = [_point(values[3 * n : 3 * n + 3]) for n in range(3)]
    try:
        return Colour(of_curve((points[0], points[1], points[2], _point(list(white))), power(exponent)))
    except icc.ProfileError:
        return PLAIN


def _point(xyz: list[float]) -> Point:
    total = sum(xyz)
    return (xyz[0] / total, xyz[1] / total) if total else (0.0, 0.0)

"""A TIFF as libtiff's readers show it: colour maps of 8 bits, and 16 bits in a plane for each channel."""

import struct
from io import BytesIO

from PIL import Image, TiffImagePlugin

from intake import colours
from intake.opened import Opened
from intake.turns import turned

_BITS, _PHOTOMETRIC, _STRIPS, _SAMPLES, _LENGTHS, _PLANAR = 258, 262, 273, 277, 279, 284
_COLOUR_MAP, _TILES, _TILE_LENGTHS = 320, 324, 325
_ORIENTATION = 274
_LONG, _SHORT, _PLANES = 4, 3, 2


class TiffFile(Opened):
    decoder = "TIFF"
    image: TiffImagePlugin.TiffImageFile

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.frames = max(1, int(getattr(self.image, "n_frames", 1)))
        self.colour = colours.suiting(self.image.mode, colours.of_profile(self.image.info.get("icc_profile")))
        self.marks = (self.colour.mark,) if self.colour.mark else ()

    def still(self, index: int) -> Image.Image:
        if self.frames > 1:
            self.image.seek(index)
        tags = self.image.tag_v2
        if (
            tags.get(_PLANAR) == _PLANES
            and set(tags.get(_BITS, ())) == {16}
            and self.image.mode in ("RGB", "RGBA")
        ):
            return self._of_planes(tags)
        image = super().still(index)
        levels = tags.get(_COLOUR_MAP)
        if image.mode == "P" and levels and max(levels) < 256:
            third = len(levels) // 3
            image.putpalette([levels[band * third + entry] for entry in range(third) for band in range(3)])
        return image

    def _of_planes(self, tags: TiffImagePlugin.ImageFileDirectory_v2) -> Image.Image:
        """RGB: each channel read as a grey picture of its own, by a directory put behind the file."""
        where, lengths = (_TILES, _TILE_LENGTHS) if _TILES in tags else (_STRIPS, _LENGTHS)
        count = len(tags[where]) // int(tags[_SAMPLES])
        bands = []
        for number in range(3):
            part = slice(number * count, (number + 1) * count)
            plane = self._plane({where: tags[where][part], lengths: tags[lengths][part]})
            plane.load()
            bands.append(plane.convert("I").point(lambda value: value * (1 / 257)).convert("L"))
        # Pillow turns what it loads itself; the planes' own directories name no orientation.
        return turned(Image.merge("RGB", bands), int(tags.get(_ORIENTATION, 1)))

    def _plane(self, places: dict[int, tuple[int, ...]]) -> Image.Image:
        tags = self.image.tag_v2
        numbers = {
            tag: (value,) if isinstance(value, int) else tuple(value)
            for tag in (256, 257, 259, 266, 278, 317, 322, 323)
            if (value := tags.get(tag)) is not None
        }
        numbers |= places | {_BITS: (16,), _PHOTOMETRIC: (1,), _SAMPLES: (1,), _PLANAR: (1,)}
        data = self.data + bytes(len(self.data) % 2)
        order = "<" if data[:2] == b"II" else ">"
        data = (
            data[:4] + struct.pack(order + "I", len(data)) + data[8:] + _directory(numbers, order, len(data))
        )
        return Image.open(BytesIO(data), formats=["TIFF"])


def _directory(numbers: dict[int, tuple[int, ...]], order: str, at: int) -> bytes:
    entries, bodies = b"", b""
    body_at = at + 2 + 12 * len(numbers) + 4
    for tag, values in sorted(numbers.items()):
        kind = _SHORT if tag in (_BITS, _PHOTOMETRIC, _SAMPLES, _PLANAR, 259, 266, 317) else _LONG
        body = struct.pack(f"{order}{len(values)}{'H' if kind == _SHORT else 'I'}", *values)
        if len(body) > 4:
            place = struct.pack(order + "I", body_at + len(bodies))
            bodies += body
        else:
            place = body.ljust(4, b"\0")
        entries += struct.pack(order + "HHI", tag, kind, len(values)) + place
    return struct.pack(order + "H", len(numbers)) + entries + bytes(4) + bodies

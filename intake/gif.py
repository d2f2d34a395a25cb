"""A GIF as browsers show it: frames put over one another on a canvas that begins, and is cleared, see-through.

Pillow fills what no frame covers with the background colour, and keeps the transparency of a control block that
a later one replaces.
"""

import struct
from dataclasses import dataclass
from io import BytesIO

from PIL import Image

from intake.damage import tolerated
from intake.opened import Opened, shown_ms

_EXTENSION, _FRAME, _TRAILER, _CONTROL = 0x21, 0x2C, 0x3B, 0xF9
_HAS_TABLE, _INTERLACED, _TABLE_SIZE = 0x80, 0x40, 0x07
_CLEAR, _RESTORE = 2, 3


class GifError(ValueError):
    """A block that is cut off or is none."""


@dataclass(frozen=True)
class GifFrame:
    """One frame as it is stored. transparent: an index of its colour table, or None."""

    left: int
    top: int
    width: int
    height: int
    flags: int
    table: bytes
    body: bytes  # the code size and the blocks of its pixels
    transparent: int | None
    disposal: int
    duration_ms: float

    @property
    def box(self) -> tuple[int, int, int, int]:
        return self.left, self.top, self.left + self.width, self.top + self.height

    def decode(self) -> Image.Image:
        """RGBA."""
        control = b""
        if self.transparent is not None:
            control = b"\x21\xf9\4\1\0\0" + bytes((self.transparent,)) + b"\0"
        size = struct.pack("<HH", self.width, self.height)
        depth = (len(self.table) // 3).bit_length() - 2
        head = b"GIF89a" + size + bytes((_HAS_TABLE | depth, 0, 0)) + self.table
        frame = b"\x2c" + bytes(4) + size + bytes((self.flags & _INTERLACED,)) + self.body
        file = head + control + frame + b";"
        try:
            return _decoded(file)
        except OSError:
            with tolerated():
                return _decoded(file)


def _decoded(file: bytes) -> Image.Image:
    image = Image.open(BytesIO(file), formats=["GIF"])
    image.load()
    return image.convert("RGBA")


class GifFile(Opened):
    """Frames are drawn in order; asking for an earlier one begins anew."""

    decoder = "GIF"

    def __init__(self, data: bytes) -> None:
        (width, height), self._stored = _parse(data)
        super().__init__(data)
        first = self._stored[0]
        self.width = max(width, first.box[2])
        self.height = max(height, first.box[3])
        self.frames = len(self._stored)
        self.durations_ms = shown_ms([frame.duration_ms for frame in self._stored])
        self._canvas: Image.Image | None = None
        self._drawn = -1

    def still(self, index: int) -> Image.Image:
        """RGBA, or RGB where nothing shows through."""
        if self._canvas is None or index < self._drawn:
            self._canvas, self._drawn = Image.new("RGBA", (self.width, self.height)), -1
            self._cleared = self._canvas
        while self._drawn < index:
            self._draw(self._drawn + 1)
        alpha = self._canvas.getchannel("A")
        return self._canvas.convert("RGB") if alpha.getextrema() == (255, 255) else self._canvas.copy()

    def _draw(self, index: int) -> None:
        canvas, frame = self._canvas, self._stored[index]
        assert canvas is not None, "still made it"
        if index:
            canvas = self._disposed(canvas, self._stored[index - 1])
        if frame.disposal == _RESTORE:
            self._cleared = canvas.copy()
        pixels = frame.decode()
        canvas.paste(pixels, (frame.left, frame.top), mask=pixels.getchannel("A"))
        self._canvas, self._drawn = canvas, index

    def _disposed(self, canvas: Image.Image, before: GifFrame) -> Image.Image:
        if before.disposal == _RESTORE:
            return self._cleared.copy()
        if before.disposal == _CLEAR:
            canvas.paste((0, 0, 0, 0), before.box)
        return canvas


def _parse(data: bytes) -> tuple[tuple[int, int], list[GifFrame]]:
    """The size of the screen, and all frames that are whole. Raises GifError where there is none."""
    if len(data) < 13:
        raise GifError("no screen")
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    reader = _BlockReader(data, 13)
    shared = reader.table(flags)
    frames: list[GifFrame] = []
    control = bytes(4)
    try:
        while (block := reader.byte()) != _TRAILER:
            if block == _EXTENSION:
                label, content = reader.byte(), reader.blocks()
                if label == _CONTROL and len(content) >= 6:
                    control = content[1:5]
            elif block == _FRAME:
                frames.append(reader.frame(control, shared))
                control = bytes(4)
            elif frames or block:
                break
    except IndexError:
        pass  # cut off: what came before is shown
    if not frames:
        raise GifError("no frame")
    return (width, height), frames


class _BlockReader:
    """Raises IndexError past the end."""

    def __init__(self, data: bytes, at: int) -> None:
        self._data = data
        self._at = at

    def byte(self) -> int:
        self._at += 1
        return self._data[self._at - 1]

    def take(self, size: int) -> bytes:
        taken = self._data[self._at : self._at + size]
        if len(taken) < size:
            raise IndexError
        self._at += size
        return taken

    def table(self, flags: int) -> bytes:
        return self.take(3 << ((flags & _TABLE_SIZE) + 1)) if flags & _HAS_TABLE else b""

    def blocks(self) -> bytes:
        """Blocks as they are stored, lengths included. Those that are cut off are ended where the file ends."""
        start = self._at
        try:
            while size := self.byte():
                self._at += size
        except IndexError:
            return self._data[start:] + b"\0"
        return self._data[start : self._at]

    def frame(self, control: bytes, shared: bytes) -> GifFrame:
        left, top, width, height, flags = struct.unpack("<HHHHB", self.take(9))
        table = self.table(flags) or shared or bytes(6)
        body = self.take(1) + self.blocks()
        packed, delay, transparent = struct.unpack("<BHB", control)
        return GifFrame(
            left=left,
            top=top,
            width=width,
            height=height,
            flags=flags,
            table=table,
            body=body,
            transparent=transparent if packed & 1 else None,
            disposal=packed >> 2 & 7,
            duration_ms=10.0 * delay,
        )

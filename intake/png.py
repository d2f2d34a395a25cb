"""A PNG's chunks as Chromium reads them: the first valid one of a kind counts, and none after the pixels.

Pillow takes the last one, wherever it stands. So it is given a file with only the chunks that count; what they
say of colour, transparency and orientation is read here.
"""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

SIGNATURE = b"\x89PNG\r\n\x1a\n"
GREY, RGB, PALETTE, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6

_MAX_CHUNK_BYTES = 2**31 - 1
_MAX_PROFILE_BYTES = 16_000_000  # unpacked; what is larger is not read by the profile's reader either

# Lengths that a chunk must have to count: from, to.
_LENGTHS = {
    b"tRNS": (1, 256),
    b"gAMA": (4, 4),
    b"cHRM": (32, 32),
    b"sRGB": (1, 1),
    b"cICP": (4, 4),
    b"iCCP": (0, _MAX_CHUNK_BYTES),
    b"eXIf": (0, _MAX_CHUNK_BYTES),
    b"acTL": (8, 8),
}
_NOT_AFTER_PALETTE = frozenset({b"cICP"})
_PIXELS = frozenset({b"IDAT", b"fdAT"})
_CONTROL = struct.Struct(
    "!IIIIIHHBB"
)  # of a frame: number, size, place, duration as a fraction, disposal, blending
_KEY_BYTES = {GREY: 2, RGB: 6}


class PngError(ValueError):
    """What is no PNG, to a browser neither."""


@dataclass(frozen=True)
class PngChunk:
    """One chunk of a file. whole: length, kind, data and checksum."""

    kind: bytes
    data: memoryview
    whole: memoryview

    def is_sound(self) -> bool:
        return zlib.crc32(self.whole[4:-4]) == int.from_bytes(self.whole[-4:], "big")


@dataclass
class PngFrame:
    """One frame of an animation, as its fcTL chunk places it. pixels: packed, in the pieces that the file has."""

    width: int
    height: int
    left: int
    top: int
    duration_ms: float
    disposal: int
    blending: int
    pixels: list[memoryview] = field(default_factory=list)

    @property
    def box(self) -> tuple[int, int, int, int]:
        return self.left, self.top, self.left + self.width, self.top + self.height


@dataclass
class Png:
    """What counts of a file. frames: of the animation, none where it is a still picture.

    cleaned: the default picture, which is the only one where there is no animation, as a file of its own.
    """

    width: int
    height: int
    bits: int
    colour: int
    chunks: dict[bytes, bytes] = field(default_factory=dict)
    hidden_default: bool = False  # the first picture is none of the animation's
    frames: list[PngFrame] = field(default_factory=list)
    dubious: bool = False  # it holds what readers disagree on
    cleaned: bytes = b""
    coding: bytes = b""  # the header behind the sizes: depth, colour, packing, filters, interlacing

    @property
    def transparent_colour(self) -> tuple[int, ...] | None:
        """The key of a picture without palette or alpha channel, one sample a channel, in `bits` bits."""
        size = _KEY_BYTES.get(self.colour)
        data = self.chunks.get(b"tRNS")
        if size is None or data is None:
            return None
        mask = 0xFFFF if self.bits == 16 else 0xFF
        return tuple(sample & mask for sample in struct.unpack(f"!{size // 2}H", data[:size]))

    def file_of(self, frame: PngFrame) -> bytes:
        """One frame as a file of its own."""
        return self.file((frame.width, frame.height), pack(b"IDAT", b"".join(frame.pixels)))

    def file(self, size: tuple[int, int], *pixels: bytes | memoryview) -> bytes:
        """Pixels with the palette and its transparency; a key of transparency is left to `png_file`."""
        header = pack(b"IHDR", struct.pack("!II", *size) + self.coding)
        kinds = (b"PLTE", b"tRNS") if self.colour == PALETTE else (b"PLTE",)
        tables = [pack(kind, self.chunks[kind]) for kind in kinds if kind in self.chunks]
        return b"".join([SIGNATURE, header, *tables, *pixels, pack(b"IEND", b"")])

    def profile(self) -> bytes | None:
        """The unpacked ICC profile; None where there is none that can be unpacked."""
        _, _, packed = self.chunks.get(b"iCCP", b"").partition(b"\0")
        if packed[:1] != b"\0":
            return None
        unpacker = zlib.decompressobj()
        try:
            profile = unpacker.decompress(packed[1:], _MAX_PROFILE_BYTES)
        except zlib.error:
            return None
        return profile if unpacker.eof else None

    @property
    def packed_profile(self) -> bool:
        return b"iCCP" in self.chunks


def read(data: bytes) -> Png:
    """Raises PngError where there is no header."""
    found = _chunks(data)
    header = next(found, None)
    if header is None or header.kind != b"IHDR" or len(header.data) != 13:
        raise PngError("no header")
    width, height, bits, colour = struct.unpack("!IIBB", header.data[:10])
    png = Png(width, height, bits, colour, coding=bytes(header.data[8:]))
    reader = _ChunkReader(png)
    for chunk in found:
        reader.take(chunk)
        if chunk.kind == b"IEND":
            break
    reader.finish()
    return png


def sealed(data: bytes) -> bytes:
    """The file with a right checksum for every chunk that holds pixels."""
    return SIGNATURE + b"".join(
        pack(chunk.kind, bytes(chunk.data)) if chunk.kind in _PIXELS else bytes(chunk.whole)
        for chunk in _chunks(data)
    )


def _chunks(data: bytes) -> Iterator[PngChunk]:
    """All chunks. A last one that is cut off is handed over as far as it goes, without a checksum."""
    view, at = memoryview(data), len(SIGNATURE)
    while at + 8 <= len(data):
        length = int.from_bytes(view[at : at + 4], "big")
        if length > _MAX_CHUNK_BYTES:
            return
        yield PngChunk(
            bytes(view[at + 4 : at + 8]), view[at + 8 : at + 8 + length], view[at : at + 12 + length]
        )
        at += 12 + length


class _ChunkReader:
    """Sorts chunks into those that count and the rest."""

    def __init__(self, png: Png) -> None:
        self._png = png
        self._pixels: list[memoryview] = []
        self._frames: list[PngFrame] = []
        self._has_default = False  # the default picture is the first frame

    def take(self, chunk: PngChunk) -> None:
        match chunk.kind:
            case b"IDAT":
                self._pixels.append(chunk.whole)
                self._png.dubious |= not chunk.is_sound()
                if self._has_default:
                    self._frames[0].pixels.append(chunk.data)
            case b"PLTE":
                self._take_palette(chunk)
            case b"fcTL" | b"fdAT":
                self._take_frame(chunk)
            case kind if kind in _LENGTHS:
                self._take_ancillary(chunk)

    def _take_palette(self, chunk: PngChunk) -> None:
        if b"PLTE" in self._png.chunks or self._pixels:
            self._png.dubious = True
            return
        self._png.chunks[b"PLTE"] = bytes(chunk.data)

    def _take_ancillary(self, chunk: PngChunk) -> None:
        kind, chunks = chunk.kind, self._png.chunks
        misplaced = bool(self._pixels) or (kind in _NOT_AFTER_PALETTE and b"PLTE" in chunks)
        if kind in chunks or misplaced or not self._is_valid(chunk):
            self._png.dubious = True
            return
        chunks[kind] = bytes(chunk.data)

    def _is_valid(self, chunk: PngChunk) -> bool:
        low, high = _LENGTHS[chunk.kind]
        data, png = chunk.data, self._png
        if not low <= len(data) <= high or not chunk.is_sound():
            return False
        match chunk.kind:
            case b"tRNS":
                if png.colour == PALETTE:
                    return b"PLTE" in png.chunks
                return len(data) >= _KEY_BYTES.get(png.colour, _MAX_CHUNK_BYTES)
            case b"gAMA":
                return bytes(data) != bytes(4)
            case b"sRGB":
                return data[0] <= 3
            case b"cICP":
                return data[2] == 0 and data[3] <= 1
            case b"acTL":
                return 0 < int.from_bytes(data[:4], "big") <= _MAX_CHUNK_BYTES
        return True

    def _take_frame(self, chunk: PngChunk) -> None:
        """Where a control stands twice, the later one counts; sequence numbers are not looked at."""
        if b"acTL" not in self._png.chunks:
            self._png.dubious = True
        elif chunk.kind == b"fcTL" and len(chunk.data) == _CONTROL.size:
            if self._frames and not self._frames[-1].pixels:
                self._frames.pop()
            self._frames.append(_frame(chunk.data))
            self._has_default |= not self._pixels
        elif chunk.kind == b"fdAT" and self._pixels and self._frames:
            self._frames[-1].pixels.append(chunk.data[4:])

    def finish(self) -> None:
        png = self._png
        frames = [frame for frame in self._frames if frame.pixels]
        actl = png.chunks.get(b"acTL")
        count = min(int.from_bytes(actl[:4], "big"), len(frames)) if actl else 0
        if count > 1 or (count == 1 and not self._has_default):
            png.hidden_default = not self._has_default
            png.frames = frames[:count]
        png.cleaned = png.file((png.width, png.height), *self._pixels)


def _frame(control: memoryview) -> PngFrame:
    _, width, height, left, top, numerator, denominator, disposal, blending = _CONTROL.unpack(control)
    return PngFrame(width, height, left, top, 1000 * numerator / (denominator or 100), disposal, blending)


def pack(kind: bytes, data: bytes) -> bytes:
    """One chunk."""
    return struct.pack("!I", len(data)) + kind + data + struct.pack("!I", zlib.crc32(kind + data))

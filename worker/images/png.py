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
_KEY_BYTES = {GREY: 2, RGB: 6}


class PngError(ValueError):
    """What is no PNG, to a browser neither."""


@dataclass(frozen=True)
class Chunk:
    """One chunk of a file. whole: length, kind, data and checksum."""

    kind: bytes
    data: memoryview
    whole: memoryview

    def is_sound(self) -> bool:
        return zlib.crc32(self.whole[4:-4]) == int.from_bytes(self.whole[-4:], "big")


@dataclass
class Png:
    """What counts of a file. durations_ms: of the animation's frames, none where it is a still picture."""

    width: int
    height: int
    bits: int
    colour: int
    chunks: dict[bytes, bytes] = field(default_factory=dict)
    hidden_default: bool = False  # the first picture is none of the animation's
    durations_ms: list[float] = field(default_factory=list)
    dubious: bool = False  # it holds what readers disagree on
    cleaned: bytes = b""

    @property
    def transparent_colour(self) -> tuple[int, ...] | None:
        """The key of a picture without palette or alpha channel, one sample a channel, in `bits` bits."""
        size = _KEY_BYTES.get(self.colour)
        data = self.chunks.get(b"tRNS")
        if size is None or data is None:
            return None
        mask = 0xFFFF if self.bits == 16 else 0xFF
        return tuple(sample & mask for sample in struct.unpack(f"!{size // 2}H", data[:size]))

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
    png = Png(*struct.unpack("!IIBB", header.data[:10]))
    reader = _Reader(png, header)
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


def _chunks(data: bytes) -> Iterator[Chunk]:
    """All chunks. A last one that is cut off is handed over as far as it goes, without a checksum."""
    view, at = memoryview(data), len(SIGNATURE)
    while at + 8 <= len(data):
        length = int.from_bytes(view[at : at + 4], "big")
        if length > _MAX_CHUNK_BYTES:
            return
        yield Chunk(bytes(view[at + 4 : at + 8]), view[at + 8 : at + 8 + length], view[at : at + 12 + length])
        at += 12 + length


class _Reader:
    """Sorts chunks into those that count and the rest."""

    def __init__(self, png: Png, header: Chunk) -> None:
        self._png = png
        self._head: list[bytes | memoryview] = [SIGNATURE, header.whole]
        self._pixels: list[memoryview] = []
        self._animation: list[memoryview] = []
        self._controls: list[memoryview] = []  # of frames that have pixels of their own
        self._pending: memoryview | None = None
        self._default_control: Chunk | None = None

    def take(self, chunk: Chunk) -> None:
        match chunk.kind:
            case b"IDAT":
                self._pixels.append(chunk.whole)
                self._png.dubious |= not chunk.is_sound()
            case b"PLTE":
                self._take_palette(chunk)
            case b"fcTL" | b"fdAT":
                self._take_frame(chunk)
            case kind if kind in _LENGTHS:
                self._take_ancillary(chunk)

    def _take_palette(self, chunk: Chunk) -> None:
        if b"PLTE" in self._png.chunks or self._pixels:
            self._png.dubious = True
            return
        self._png.chunks[b"PLTE"] = bytes(chunk.data)

    def _take_ancillary(self, chunk: Chunk) -> None:
        kind, chunks = chunk.kind, self._png.chunks
        misplaced = bool(self._pixels) or (kind in _NOT_AFTER_PALETTE and b"PLTE" in chunks)
        if kind in chunks or misplaced or not self._is_valid(chunk):
            self._png.dubious = True
            return
        chunks[kind] = bytes(chunk.data)

    def _is_valid(self, chunk: Chunk) -> bool:
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

    def _take_frame(self, chunk: Chunk) -> None:
        """A frame counts once its pixels follow; Pillow fails on a control without any."""
        if b"acTL" not in self._png.chunks:
            self._png.dubious = True
            return
        if chunk.kind == b"fcTL" and not self._pixels:
            self._default_control = chunk
        elif chunk.kind == b"fcTL":
            self._pending = chunk.whole
        elif self._pixels:
            if self._pending is not None:
                self._controls.append(self._pending)
                self._animation.append(self._pending)
                self._pending = None
            self._animation.append(chunk.whole)

    def finish(self) -> None:
        png = self._png
        frames: list[bytes | memoryview] = []
        controls = ([self._default_control.whole] if self._default_control else []) + self._controls
        count = self._declared_frames(len(controls))
        if count > 1 or (count == 1 and self._default_control is None and self._controls):
            png.hidden_default = self._default_control is None
            png.durations_ms = [_duration_ms(control) for control in controls[:count]]
            frames = list(self._animation)
            self._head.append(pack(b"acTL", struct.pack("!II", count, 0)))
        self._head += [pack(kind, png.chunks[kind]) for kind in (b"PLTE", b"tRNS") if self._serves(kind)]
        if frames and self._default_control is not None:
            self._head.append(self._default_control.whole)
        png.cleaned = b"".join([*self._head, *self._pixels, *frames, pack(b"IEND", b"")])

    def _declared_frames(self, found: int) -> int:
        actl = self._png.chunks.get(b"acTL")
        return min(int.from_bytes(actl[:4], "big"), found) if actl else 0

    def _serves(self, kind: bytes) -> bool:
        """Transparency of palettes alone is Pillow's; a key is applied in `stills`."""
        return kind in self._png.chunks and (kind == b"PLTE" or self._png.colour == PALETTE)


def _duration_ms(control: memoryview) -> float:
    numerator, denominator = struct.unpack("!HH", control[28:32])
    return float(1000 * numerator / (denominator or 100))


def pack(kind: bytes, data: bytes) -> bytes:
    """One chunk."""
    return struct.pack("!I", len(data)) + kind + data + struct.pack("!I", zlib.crc32(kind + data))

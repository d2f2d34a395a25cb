"""A WebP's chunks, for what Pillow does not tell: how long frames are shown, and transparency that a flag denies."""

from collections.abc import Iterator
from io import BytesIO

from PIL import Image

from intake import colours
from intake.exif import orientation
from intake.opened import Opened, shown_ms

_HEAD_BYTES = 12  # RIFF, length, WEBP
_ALPHA_FLAG = 0x10  # of VP8X
_ALPHA_USED = 0x10  # of VP8L: bit 28 of its header, in its fourth byte after the signature

Chunk = tuple[bytes, int, int]  # kind, where its content begins, its length


class WebpFile(Opened):
    """Both flags of transparency are set before Pillow reads: some viewers go by what the pixels hold."""

    decoder = "WEBP"

    def __init__(self, data: bytes) -> None:
        found = list(chunks(data))
        self._flagged = _with_alpha_flags(data, found)
        super().__init__(data)
        self.frames = max(1, int(getattr(self.image, "n_frames", 1)))
        self.durations_ms = shown_ms([_duration_ms(data, at) for kind, at, _ in found if kind == b"ANMF"])
        # Chromium shows it as it is stored, Safari and Firefox turn it.
        turn = orientation(_first(data, found, b"EXIF").removeprefix(b"Exif\0\0"))
        self.turns = (1,) if turn == 1 else (turn, 1)
        self.colour = colours.of_profile(_first(data, found, b"ICCP") or None)
        self.marks = (self.colour.mark,) if self.colour.mark else ()

    def is_plain(self) -> bool:
        return self.frames == 1 and self.image.mode == "RGB" and self.turns == (1,) and not self._flagged

    def still(self, index: int) -> Image.Image:
        image = super().still(index)
        if self._flagged is None or self.frames > 1:
            return image
        seen = Image.open(BytesIO(self._flagged), formats=["WEBP"])
        seen.load()
        if seen.mode != "RGBA" or _is_flat(seen.getchannel("A")):
            self._flagged = None  # an encoder that left the channel empty
            return image
        return seen


def chunks(data: bytes) -> Iterator[Chunk]:
    """The chunks of a file, those inside frames left out."""
    at = _HEAD_BYTES
    while at + 8 <= len(data):
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        yield data[at : at + 4], at + 8, min(size, len(data) - at - 8)
        at += 8 + size + size % 2


def _first(data: bytes, found: list[Chunk], kind: bytes) -> bytes:
    return next((data[at : at + size] for name, at, size in found if name == kind), b"")


def _duration_ms(data: bytes, at: int) -> float:
    return float(int.from_bytes(data[at + 12 : at + 15], "little"))


def _with_alpha_flags(data: bytes, found: list[Chunk]) -> bytes | None:
    """The file with its transparency declared, where it may hold some and denies it; else None."""
    changed = bytearray(data)
    kinds = {kind for kind, _, _ in found}
    for kind, at, size in found:
        if kind == b"VP8L" and size > 5:
            changed[at + 4] |= _ALPHA_USED
        elif kind == b"VP8X" and size >= 10 and kinds & {b"ALPH", b"VP8L"}:
            changed[at] |= _ALPHA_FLAG
    return None if changed == data else bytes(changed)


def _is_flat(alpha: Image.Image) -> bool:
    low, high = alpha.getextrema()
    return low == high

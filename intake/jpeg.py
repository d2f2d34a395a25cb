"""A JPEG's segments as Chromium reads them: the first EXIF block, the first whole profile, a gain map."""

from collections.abc import Iterator, Sequence
from io import BytesIO

from PIL import Image, JpegImagePlugin

from intake import colours, gain_map
from intake.exif import orientation
from intake.opened import Opened

_EXIF, _PROFILE, _XMP = b"Exif\0", b"ICC_PROFILE\0", b"http://ns.adobe.com/xap/1.0/\0"
_ISO_GAIN_MAP = b"urn:iso:std:iso:ts:21496:-1\0"
_APP1, _APP2, _START_OF_SCAN = 0xE1, 0xE2, 0xDA
_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xD9)})
_NEXT_IMAGE = b"\xff\xd9\xff\xd8\xff"  # one that ends, and one that begins
_MOST_IMAGES = 8  # in one file, that are looked at

Segment = tuple[int, bytes]


class JpegFile(Opened):
    """The first picture of a file; further ones are previews and maps, which viewers do not show."""

    decoder = "JPEG"

    def __init__(self, data: bytes) -> None:
        self.segments = list(segments(data))
        super().__init__(data)
        self.turns = (orientation(_exif(self.segments)),)
        self.colour = colours.suiting(self.image.mode, colours.of_profile(profile(self.segments)))
        self.marks = (self.colour.mark,) if self.colour.mark else ()

    def is_plain(self) -> bool:
        """Not where it holds RGB without a transform, which decoders on a GPU take for YCbCr."""
        image = self.image
        assert isinstance(image, JpegImagePlugin.JpegImageFile)
        return (
            image.mode == "RGB"
            and self.turns == (1,)
            and image.info.get("adobe_transform") != 0
            and bytes(layer[0] for layer in image.layer) != b"RGB"
        )

    def further(self) -> Sequence[tuple[str, Image.Image]]:
        """The rendition that a gain map makes of the base; viewers show the one or the other by their screen."""
        for at in _later_images(self.data):
            part = self.data[at:]
            mapping = _gain_map(list(segments(part)))
            if mapping is None:
                continue
            gains = Image.open(BytesIO(part), formats=["JPEG"])
            if gains.width * gains.height > self.width * self.height:
                return ()  # none does so; and what it may cost is bounded
            shown = gain_map.apply(self.image, gains, mapping)
            return [("with gain map", shown)] if gain_map.matters(self.image, shown, mapping) else []
        return ()


def segments(data: bytes) -> Iterator[Segment]:
    """Marker and content of each segment before the first scan."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # padding
            at += 1
        elif marker in _WITHOUT_LENGTH:
            at += 2
        elif marker == _START_OF_SCAN:
            return
        else:
            length = int.from_bytes(data[at + 2 : at + 4], "big")
            yield marker, data[at + 4 : at + 2 + length]
            at += 2 + max(length, 2)


def profile(found: Sequence[Segment]) -> bytes | None:
    """The ICC profile, of the first part of each number; None where one is missing."""
    parts: dict[int, bytes] = {}
    total = 0
    for marker, content in found:
        if marker != _APP2 or not content.startswith(_PROFILE) or len(content) < len(_PROFILE) + 3:
            continue
        number, count = content[len(_PROFILE)], content[len(_PROFILE) + 1]
        if not total:
            total = count
        if count != total or not 1 <= number <= count:
            continue
        parts.setdefault(number, content[len(_PROFILE) + 2 :])
    if not total or len(parts) != total:
        return None
    return b"".join(parts[number] for number in range(1, total + 1))


def _exif(found: Sequence[Segment]) -> bytes:
    """The first EXIF block without its prefix, whatever it holds: a second one is not read."""
    for marker, content in found:
        if marker == _APP1 and content.startswith(_EXIF):
            return content[len(_EXIF) + 1 :]
    return b""


def _later_images(data: bytes) -> Iterator[int]:
    """Where further pictures begin in the file."""
    at = 0
    for _ in range(_MOST_IMAGES):
        at = data.find(_NEXT_IMAGE, at) + 2
        if at < 2:
            return
        yield at


def _gain_map(found: Sequence[Segment]) -> gain_map.GainMap | None:
    for marker, content in found:
        if marker == _APP2 and content.startswith(_ISO_GAIN_MAP):
            mapping = gain_map.from_iso(content[len(_ISO_GAIN_MAP) :])
        elif marker == _APP1 and content.startswith(_XMP):
            mapping = gain_map.from_xmp(content[len(_XMP) :])
        else:
            continue
        if mapping is not None:
            return mapping
    return None

"""AVIF and HEIF as browsers and phones show them."""

from collections.abc import Sequence

from PIL import Image

from intake import colours, icc, iso_media
from intake.colour_space import of_code_points
from intake.exif import orientation
from intake.opened import Opened, shown_ms

_MAJOR_BRANDS = frozenset({b"avif", b"avis", b"mif1", b"msf1"})
_SRGB_LIKE = frozenset({1, 2, 6, 13, 14, 15})  # transfers that are shown as they are stored, or are not named


class AvifFile(Opened):
    """Cut to its clean aperture, which libavif leaves to its callers; and all of it, as viewers differ."""

    decoder = "AVIF"

    def __init__(self, data: bytes) -> None:
        super().__init__(_branded(data))
        media = iso_media.read(data)
        self.frames = max(1, int(getattr(self.image, "n_frames", 1)))
        durations = shown_ms(media.durations_ms)
        self.durations_ms = durations if len(durations) == self.frames else ()
        self.turns = (_turned(self.image),)
        self._box = media.aperture.box(self.image.size) if media.aperture else None
        self.colour = colours.of_profile(self.image.info.get("icc_profile"))
        if self.colour is colours.PLAIN and media.code_points is not None:
            self.colour = _of_code_points(*media.code_points)
        self.marks = (self.colour.mark,) if self.colour.mark else ()

    def still(self, index: int) -> Image.Image:
        image = super().still(index)
        return image if self._box is None or self.frames > 1 else image.crop(self._box)

    def further(self) -> Sequence[tuple[str, Image.Image]]:
        """All of it: Chromium honours an aperture at the upper left corner alone, and others none."""
        return () if self._box is None else [("without aperture", self.image.convert("RGB"))]


class HeifFile(Opened):
    """Its primary picture is what people see; others are a burst, or hidden."""

    decoder = "HEIF"

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.frames = max(1, int(getattr(self.image, "n_frames", 1)))
        self.always = (self.image.tell(),)
        self.turns = (_turned(self.image),)
        self.colour = colours.of_profile(self.image.info.get("icc_profile"))
        self.marks = (self.colour.mark,) if self.colour.mark else ()


def _branded(data: bytes) -> bytes:
    """With a major brand that Pillow knows: browsers take any, where a compatible one is AVIF's."""
    if data[8:12] in _MAJOR_BRANDS:
        return data
    brands = data[16 : min(int.from_bytes(data[:4], "big"), 256)]
    return data[:8] + (b"avis" if b"avis" in brands else b"avif") + data[12:]


def _turned(image: Image.Image) -> int:
    """As the plugin found it: it makes an EXIF orientation of the container's own turns. XMP turns nothing."""
    block = image.info.get("exif")
    return orientation(block.removeprefix(b"Exif\0\0")) if isinstance(block, bytes) else 1


def _of_code_points(primaries: int, transfer: int) -> colours.Colour:
    if primaries in (1, 2) and transfer in _SRGB_LIKE:
        return colours.PLAIN
    try:
        return colours.Colour(of_code_points(primaries, transfer), "with code points")
    except icc.ProfileError:
        return colours.PLAIN

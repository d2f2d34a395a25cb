"""A PNG or APNG as browsers show it."""

from io import BytesIO

from PIL import Image

from worker.images import colours, icc, png
from worker.images.colour_space import SRGB_PRIMARIES, Point, of_code_points, of_curve, power
from worker.images.colours import PLAIN, Colour
from worker.images.exif import orientation
from worker.images.opened import Opened, shown_ms
from worker.images.transparency import keyed, matching, with_holes

_NEUTRAL = (0.95, 1.05)  # a gamma of 1/2.2, within what libpng and Chromium ignore
_GREY_STEPS = {1: 255, 2: 85, 4: 17, 8: 1}  # of Pillow's 8 bits, for a sample of fewer


class PngFile(Opened):
    """The chunks that count, and nothing else, go to Pillow."""

    decoder = "PNG"

    def __init__(self, data: bytes) -> None:
        self.png = png.read(data)
        super().__init__(self.png.cleaned)
        durations = shown_ms(self.png.durations_ms)
        if len(durations) > 1 or self.png.hidden_default:
            self.frames = len(durations) + self.png.hidden_default
            # A viewer without animations shows the default picture, and that alone.
            self.durations_ms = [0.0, *durations] if self.png.hidden_default else durations
        self.turns = (orientation(self.png.chunks.get(b"eXIf", b"")),)
        self.colour = _colour(self.png)
        self.marks = (self.colour.mark,) if self.colour.mark else ()

    def still(self, index: int) -> Image.Image:
        image = super().still(index)
        key = self.png.transparent_colour
        if key is None:
            return image
        if self.png.bits == 16:
            return self._keyed_by_both_bytes(image, key)
        if self.png.colour == png.GREY:
            key = (key[0] * _GREY_STEPS[self.png.bits],)
            image = image.convert("L")
        return keyed(image, key)

    def _keyed_by_both_bytes(self, image: Image.Image, key: tuple[int, ...]) -> Image.Image:
        """Samples of 16 bits: Pillow keeps the upper eight, so the file is read again for the lower ones."""
        mode = "L" if self.png.colour == png.GREY else "RGB"
        high, low = (self._bytes(mode, part) for part in ("B", ""))
        holes = matching(high, tuple(value >> 8 for value in key))
        lower = matching(low, tuple(value & 255 for value in key))
        both = Image.new("L", holes.size)
        both.paste(holes, mask=lower)
        return with_holes(high if self.frames == 1 else image, both)

    def _bytes(self, mode: str, part: str) -> Image.Image:
        """One byte of each sample of the default picture: the upper one of big-endian samples, or the lower."""
        raw = {"L": "L;16", "RGB": "RGB;16"}[mode] + (part or ("L" if mode == "RGB" else ""))
        image = Image.open(BytesIO(self.png.cleaned), formats=["PNG"])
        image.tile = [tile._replace(args=raw) for tile in image.tile]
        image._mode = mode  # the tiles are unpacked into it
        image.load()
        return image

    def is_plain(self) -> bool:
        return (
            self.frames == 1
            and (self.png.colour, self.png.bits) == (png.RGB, 8)
            and self.turns == (1,)
            and b"tRNS" not in self.png.chunks
            and b"acTL" not in self.png.chunks
            and not self.png.dubious
        )


def _colour(file: png.Png) -> Colour:
    """What counts of cICP, iCCP, sRGB, gAMA and cHRM, in this order; each that cannot be used leaves it to the next."""
    for found in (_code_points(file), _profile(file)):
        if found is not PLAIN:
            return found
    if b"sRGB" in file.chunks or b"gAMA" not in file.chunks:
        return PLAIN
    return _gamma(file)


def _code_points(file: png.Png) -> Colour:
    primaries, transfer, _, full_range = file.chunks.get(b"cICP", bytes(4))
    if not full_range:
        return PLAIN
    try:
        return Colour(of_code_points(primaries, transfer), "with code points")
    except icc.ProfileError:
        return PLAIN


def _profile(file: png.Png) -> Colour:
    grey = file.colour in (png.GREY, png.GREY_ALPHA)
    return colours.suiting("L" if grey else "RGB", colours.of_profile(file.profile()))


def _gamma(file: png.Png) -> Colour:
    gamma = int.from_bytes(file.chunks[b"gAMA"], "big") / 100_000
    primaries = SRGB_PRIMARIES
    if b"cHRM" in file.chunks:
        numbers = [
            int.from_bytes(file.chunks[b"cHRM"][at : at + 4], "big") / 100_000 for at in range(0, 32, 4)
        ]
        white, red, green, blue = (_point(numbers, at) for at in range(0, 8, 2))
        primaries = red, green, blue, white
    elif _NEUTRAL[0] < gamma * 2.2 < _NEUTRAL[1]:
        return PLAIN
    try:
        return Colour(of_curve(primaries, power(1 / gamma)), "with gamma")
    except icc.ProfileError:
        return PLAIN


def _point(numbers: list[float], at: int) -> Point:
    return numbers[at], numbers[at + 1]

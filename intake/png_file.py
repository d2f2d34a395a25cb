"""A PNG or APNG as browsers show it."""

from io import BytesIO

from PIL import Image

from intake import colours, icc, png
from intake.canvas import Canvas
from intake.colour_space import SRGB_PRIMARIES, Point, of_code_points, of_curve, power
from intake.colours import PLAIN, Colour
from intake.exif import orientation
from intake.opened import Opened, shown_ms
from intake.transparency import keyed, matching, with_holes

_NEUTRAL = (0.95, 1.05)  # a gamma of 1/2.2, within what libpng and Chromium ignore
_OVER = 1  # of a frame's blending
_GREY_STEPS = {1: 255, 2: 85, 4: 17, 8: 1}  # of Pillow's 8 bits, for a sample of fewer


class PngFile(Opened):
    """The chunks that count, and nothing else, go to Pillow."""

    decoder = "PNG"

    def __init__(self, data: bytes) -> None:
        self.png = png.read(data)
        super().__init__(self.png.cleaned)
        self._canvas: Canvas | None = None
        if self.png.frames:
            durations = shown_ms([frame.duration_ms for frame in self.png.frames])
            self.frames = len(durations) + self.png.hidden_default
            # A viewer without animations shows the default picture, and that alone.
            self.durations_ms = [0.0, *durations] if self.png.hidden_default else durations
        self.turns = (orientation(self.png.chunks.get(b"eXIf", b"")),)
        self.colour = _colour(self.png)
        self.marks = (self.colour.mark,) if self.colour.mark else ()

    def still(self, index: int) -> Image.Image:
        number = index - self.png.hidden_default
        if not self.png.frames or number < 0:
            return _decoded(self.png, self.png.cleaned)
        canvas = self._canvas
        if canvas is None or number + 1 < canvas.drawn:
            canvas = self._canvas = Canvas((self.width, self.height))
        for frame in self.png.frames[canvas.drawn : number + 1]:
            pixels = _decoded(self.png, self.png.file_of(frame))
            canvas.draw(pixels.convert("RGBA"), frame.box, frame.disposal, over=frame.blending == _OVER)
        return canvas.picture()

    def is_plain(self) -> bool:
        return (
            self.frames == 1
            and (self.png.colour, self.png.bits) == (png.RGB, 8)
            and self.turns == (1,)
            and b"tRNS" not in self.png.chunks
            and b"acTL" not in self.png.chunks
            and not self.png.dubious
        )


def _decoded(file: png.Png, data: bytes) -> Image.Image:
    """One picture with the file's key of transparency applied."""
    key = file.transparent_colour
    if key is not None and file.bits == 16:
        return _keyed_by_both_bytes(file, data, key)
    image = Image.open(BytesIO(data), formats=["PNG"])
    image.load()
    if key is None:
        return image
    if file.colour == png.GREY:
        return keyed(image.convert("L"), (key[0] * _GREY_STEPS[file.bits],))
    return keyed(image, key)


def _keyed_by_both_bytes(file: png.Png, data: bytes, key: tuple[int, ...]) -> Image.Image:
    """Samples of 16 bits: Pillow keeps the upper eight, so the file is read again for the lower ones."""
    mode, low_mode = ("L", "L;16") if file.colour == png.GREY else ("RGB", "RGB;16L")
    high, low = _bytes(data, mode, f"{mode};16B"), _bytes(data, mode, low_mode)
    holes = Image.new("L", high.size)
    holes.paste(
        matching(high, tuple(value >> 8 for value in key)),
        mask=matching(low, tuple(value & 255 for value in key)),
    )
    return with_holes(high, holes)


def _bytes(data: bytes, mode: str, raw: str) -> Image.Image:
    """One byte of each big-endian sample: the upper one, or, unpacked as little-endian, the lower."""
    image = Image.open(BytesIO(data), formats=["PNG"])
    image.tile = [tile._replace(args=raw) for tile in image.tile]
    image._mode = mode  # the tiles are unpacked into it
    image.load()
    return image


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

"""Colours as a viewer shows them that honours a file's profile. Runs in a decoder child only.

Viewers disagree on profiles, which is a known way to show one picture to people and another to programs. So
where the two differ, both are judged. The usual ones (sRGB, Display P3) change no picture that much.
"""

from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from PIL import Image, ImageCms

from intake import icc
from intake.difference import mean_difference, worst_cell

PROFILE_UNREADABLE = "profile_unreadable"
PROFILE_TOO_LARGE = "profile_too_large"

_MUCH = 8.0  # levels of 255, averaged over the picture
_MUCH_IN_A_CELL = 32.0  # or over one of its 256 parts
_INK_MUCH = 48.0  # what a printer's profile changes of ordinary pictures stays below
_TABLE_PIXELS = 2_000_000  # a table is looked up at 300 ns a pixel where nothing may be left out
_TRIAL_SIDE = 256  # pixels

# Probes of a profile that is curves and a matrix: all that these do to 8 bits shows in them.
_CUBE_STEPS = bytes(range(0, 256, 51))  # 6 levels of each channel
_USUAL_MEAN, _USUAL_GREY, _USUAL_CHANNEL = 8.0, 12, 24  # levels; Display P3 reaches 3, 1 and 11

Adjust = Callable[[Image.Image], Image.Image]  # RGB, L or CMYK to RGB of the same size


@dataclass(frozen=True)
class Colour:
    """What a file says of its colours. name: of the view that honours it. mark: why it cannot be honoured here."""

    profile: icc.IccProfile | None = None
    name: str = "with profile"
    mark: str | None = None


PLAIN = Colour()
_SPACES = {"L": ("GRAY", "RGB"), "LA": ("GRAY", "RGB"), "CMYK": ("CMYK",)}


def of_profile(data: bytes | None) -> Colour:
    """The colour of an embedded profile. What browsers cannot use either says nothing."""
    if data is None:
        return PLAIN
    if len(data) > icc.MAX_BYTES:
        return Colour(mark=PROFILE_TOO_LARGE)
    try:
        profile = icc.read(data)
        _opened(profile)
    except icc.ProfileError:
        return PLAIN
    except ImageCms.PyCMSError:
        return Colour(mark=PROFILE_UNREADABLE)
    return Colour(profile)


def suiting(mode: str, colour: Colour) -> Colour:
    """The colour where browsers honour its profile on pixels of a mode: one for grey on greys, for ink on ink."""
    if colour.profile is None or colour.profile.space in _SPACES.get(mode, ("RGB",)):
        return colour
    return PLAIN


def honoured(image: Image.Image, colour: Colour) -> Image.Image | None:
    """An RGB, RGBA, L or LA picture as its profile shows it, RGB or RGBA; None where that is much the same.

    A picture under a profile that is a table may come back smaller. Raises PyCMSError.
    """
    profile = colour.profile
    if profile is None or profile.space not in ("RGB", "GRAY"):
        return None
    if profile.space == "GRAY" and image.mode not in ("L", "LA"):
        return None  # browsers ignore it on colours
    if not profile.table and _is_usual(profile):
        return None
    alpha = image.getchannel("A") if image.mode in ("RGBA", "LA") else None
    if profile.space == "RGB":
        stored = image.convert("RGB")
        shown = _through(stored, profile)
    else:
        stored = image.getchannel(0) if image.mode == "LA" else image
        shown = stored.convert("RGB").point(_grey_levels(profile))
    stored = stored.convert("RGB")
    if stored.size != shown.size:
        stored = stored.resize(shown.size, Image.Resampling.BOX)
    if mean_difference(stored, shown) <= _MUCH and worst_cell(stored, shown) <= _MUCH_IN_A_CELL:
        return None
    if alpha is not None:
        shown.putalpha(alpha if alpha.size == shown.size else alpha.resize(shown.size, Image.Resampling.BOX))
    return shown


def from_ink(image: Image.Image, colour: Colour) -> list[tuple[str, Image.Image]]:
    """CMYK by its profile and, where that is quite another picture, by subtraction; Lab by its own definition."""
    if image.mode == "LAB":
        lab = ImageCms.buildTransform(ImageCms.createProfile("LAB"), _screen(), "LAB", "RGB")
        return [("", _apply(lab, image))]
    subtracted = image.convert("RGB")
    if colour.profile is None or colour.profile.space != "CMYK":
        return [("", subtracted)]
    shown = _through(image, colour.profile)
    if shown.size == subtracted.size and mean_difference(shown, subtracted) <= _INK_MUCH:
        return [("", shown)]
    return [("", shown), ("without profile", subtracted)]


def _is_usual(profile: icc.IccProfile) -> bool:
    """Whether curves and matrix change hardly anything: probed at every level, as a curve may jump at any."""
    mode = "L" if profile.space == "GRAY" else "RGB"
    apply = _transform(profile, mode, ImageCms.Flags.NOOPTIMIZE)
    levels = bytes(range(256))
    grey = Image.frombytes("L", (256, 1), levels).convert(mode)
    ramps = [
        (Image.frombytes("L", (256, 1), levels), apply(grey), channel, _USUAL_GREY) for channel in range(3)
    ]
    if mode == "RGB":
        for channel in range(3):
            bands = [
                Image.frombytes("L", (256, 1), levels if band == channel else bytes(256)) for band in range(3)
            ]
            ramps.append((bands[channel], apply(Image.merge("RGB", bands)), channel, _USUAL_CHANNEL))
    for before, after, channel, limit in ramps:
        moved = zip(before.tobytes(), after.getchannel(channel).tobytes(), strict=True)
        if max(abs(a - b) for a, b in moved) > limit:
            return False
    return mode == "L" or mean_difference(_CUBE, apply(_CUBE)) <= _USUAL_MEAN


def _grey_levels(profile: icc.IccProfile) -> list[int]:
    """What each of 256 levels becomes in R, G and B, one table after another."""
    ramp = Image.frombytes("L", (256, 1), bytes(range(256)))
    bands = _transform(profile, "L", ImageCms.Flags.NOOPTIMIZE)(ramp).split()
    return [level for band in bands for level in band.tobytes()]


def _through(image: Image.Image, profile: icc.IccProfile) -> Image.Image:
    """Through a profile. LittleCMS samples one at some points for speed, which may miss what it does.

    Where a look at the picture shows that, every pixel is looked up, of a smaller picture.
    """
    quick = _transform(profile, image.mode)
    exact = _transform(profile, image.mode, ImageCms.Flags.NOOPTIMIZE)
    trial = image.resize((_TRIAL_SIDE, _TRIAL_SIDE), Image.Resampling.NEAREST)
    if mean_difference(quick(trial), exact(trial)) <= 1.0:
        return quick(image)
    pixels = image.width * image.height
    if pixels > _TABLE_PIXELS:
        scale = (_TABLE_PIXELS / pixels) ** 0.5
        size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
        image = image.resize(size, Image.Resampling.NEAREST)
    return exact(image)


_CUBE = Image.frombytes(
    "RGB",
    (6, 36),
    bytes(v for r in _CUBE_STEPS for g in _CUBE_STEPS for b in _CUBE_STEPS for v in (r, g, b)),
)


def _opened(profile: icc.IccProfile) -> ImageCms.ImageCmsProfile:
    try:
        return ImageCms.ImageCmsProfile(BytesIO(profile.data))
    except OSError as error:
        raise ImageCms.PyCMSError("no profile") from error


def _screen() -> Any:
    return ImageCms.createProfile("sRGB")


def _transform(profile: icc.IccProfile, mode: str, flags: ImageCms.Flags = ImageCms.Flags.NONE) -> Adjust:
    transform = ImageCms.buildTransform(_opened(profile), _screen(), mode, "RGB", flags=flags)
    return lambda image: _apply(transform, image)


def _apply(transform: ImageCms.ImageCmsTransform, image: Image.Image) -> Image.Image:
    shown = transform.apply(image)
    shown.info.clear()
    return shown

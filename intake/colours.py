"""Any pixels to RGB as a person would see them. Runs in a decoder child only."""

from collections.abc import Callable, Iterator, Mapping
from io import BytesIO
from typing import Any

from PIL import Image, ImageCms

_MAX_PROFILE_BYTES = 4_000_000  # printers' profiles reach 3 MB
_DIRECT = frozenset({"RGB", "L", "1", "P", "YCbCr", "HSV", "RGBX"})

# Transparent enough to tell white from black behind it, over enough of the picture for content to hide.
_SEE_THROUGH_ALPHA = 224  # below it, black and white behind differ by more than 31 levels of 255
_SEE_THROUGH_SHARE = 0.01

_WHITE, _BLACK = (255, 255, 255), (0, 0, 0)

_SCREEN_GAMMA = 2.2

Info = Mapping[Any, Any]  # what Pillow found in a file beside its pixels
Adjust = Callable[[Image.Image], Image.Image]  # RGB to RGB of the same size


def to_rgb(image: Image.Image) -> Iterator[tuple[str, Image.Image]]:
    """The RGB views of one still: one, named "", or where they differ much, "on white" and "on black"."""
    image = _to_eight_bits(image)
    if image.has_transparency_data:
        yield from _flatten(image if image.mode == "RGBA" else image.convert("RGBA"))
    else:
        yield "", _opaque(image)


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """16 bits a sample are scaled by their range, not cut off at 255, which would whiten most pixels.

    32-bit integers and floats have no agreed range: they are stretched from their darkest to their lightest.
    """
    if image.mode.startswith("I;16"):
        image = image.convert("I").point(lambda value: value * (1 / 257)).convert("L")
    elif image.mode in ("I", "F"):
        low, high = _extrema(image)
        scale = 255 / (high - low) if high > low else 0.0
        image = image.convert("F").point(lambda value: value * scale + (-low * scale)).convert("L")
    else:
        return image
    image.info.pop("transparency", None)  # a colour key of 16 bits, which matches nothing any more
    return image


def _extrema(image: Image.Image) -> tuple[float, float]:
    low, high = image.getextrema()
    if isinstance(low, tuple) or isinstance(high, tuple) or not abs(low) + abs(high) < 1e30:
        raise ValueError("samples that are no finite numbers")
    return low, high


def _flatten(image: Image.Image) -> Iterator[tuple[str, Image.Image]]:
    """On white, and on black too where content could show on one of them alone."""
    alpha = image.getchannel("A")
    see_through = sum(alpha.histogram()[:_SEE_THROUGH_ALPHA]) / (image.width * image.height)
    if see_through < _SEE_THROUGH_SHARE:
        yield "", _over(image, alpha, _WHITE)
        return
    yield "on white", _over(image, alpha, _WHITE)
    yield "on black", _over(image, alpha, _BLACK)


def _over(image: Image.Image, alpha: Image.Image, background: tuple[int, int, int]) -> Image.Image:
    flat = Image.new("RGB", image.size, background)
    flat.paste(image, mask=alpha)
    return flat


def _opaque(image: Image.Image) -> Image.Image:
    if image.mode in ("CMYK", "LAB"):
        return _from_ink(image)
    if image.mode not in _DIRECT:
        raise ValueError(f"pixels of mode {image.mode}")
    return image if image.mode == "RGB" else image.convert("RGB")


def _from_ink(image: Image.Image) -> Image.Image:
    """CMYK and Lab by their own profile; CMYK without a usable one by subtraction."""
    try:
        profile = ImageCms.createProfile("LAB") if image.mode == "LAB" else _profile(image.info)
        if profile is not None:
            return _transform(profile, image.mode)(image)
    except ImageCms.PyCMSError:
        if image.mode == "LAB":
            raise
    return image.convert("RGB")


def adjustment(info: Info) -> tuple[str, Adjust] | None:
    """What a viewer that honours a file's gamma or colour profile does to its RGB pixels, where that is much.

    Viewers disagree on both, which is a known way to show one picture to people and another to programs.
    So where the two differ much, both are judged. Usual profiles (sRGB, Display P3, Adobe RGB) do not.
    """
    exponent = _gamma_exponent(info)
    if exponent is not None:
        table = [round(255 * (level / 255) ** exponent) for level in range(256)] * 3
        return "with gamma", lambda image: image.point(table)
    try:
        profile = _profile(info)
        if profile is None or profile.profile.xcolor_space.strip() != "RGB":
            return None
        apply = _transform(profile, "RGB")
        return ("with profile", apply) if _changes_much(apply) else None
    except ImageCms.PyCMSError:
        return None  # damaged: no viewer can honour it


def _gamma_exponent(info: Info) -> float | None:
    """The power that a PNG's gamma asks for, where it is far from a screen's."""
    gamma = info.get("gamma")
    if not isinstance(gamma, int | float) or gamma <= 0 or "srgb" in info or "icc_profile" in info:
        return None
    exponent = 1 / (gamma * _SCREEN_GAMMA)
    usual = 0.75 <= exponent <= 1.35  # linear light, and Macintosh's old 1.8, stay within
    return None if usual else min(max(exponent, 0.01), 100.0)


_MUCH = 24.0  # levels of 255, averaged over the colour cube

_STEPS = bytes(range(0, 256, 51))  # 6 levels of each channel
_CUBE = Image.frombytes(
    "RGB", (6, 36), bytes(v for r in _STEPS for g in _STEPS for b in _STEPS for v in (r, g, b))
)


def _changes_much(apply: Adjust) -> bool:
    before, after = _CUBE.tobytes(), apply(_CUBE).tobytes()
    return sum(abs(a - b) for a, b in zip(before, after, strict=True)) / len(before) > _MUCH


def _profile(info: Info) -> ImageCms.ImageCmsProfile | None:
    data = info.get("icc_profile")
    if not isinstance(data, bytes) or not 128 < len(data) <= _MAX_PROFILE_BYTES:
        return None
    try:
        return ImageCms.ImageCmsProfile(BytesIO(data))
    except OSError as error:
        raise ImageCms.PyCMSError("no profile") from error


def _transform(profile: Any, mode: str) -> Adjust:
    transform = ImageCms.buildTransform(profile, ImageCms.createProfile("sRGB"), mode, "RGB")
    return lambda image: transform.apply(image)

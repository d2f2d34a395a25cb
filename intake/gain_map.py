"""Gain maps: a second picture that makes another rendition of the first, by the screen (ISO 21496-1, Adobe's XMP).

A phone's map brightens a sky. A stranger's may replace the whole picture, on an ordinary screen too, where the
file says that its base is the rendition for bright screens.
"""

import re
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image, ImageMath

from intake.difference import mean_difference

_PIXELS = 1_000_000  # the rendition is made of no more: it serves to see what it shows
_MULTICHANNEL, _COMMON_DENOMINATOR = 0x80, 0x08
_ISO_VERSION = 0

_MUCH, _MUCH_BRIGHTER = 8.0, 32.0  # levels of 255, averaged over the picture

Three = tuple[float, float, float]


@dataclass(frozen=True)
class GainMap:
    """Logarithms to base 2 of what the map's darkest and lightest levels multiply linear light by; for R, G, B.

    The rendition is (base + base_offset) * 2 ** gain - offset.
    """

    low: Three
    high: Three
    gamma: Three
    base_offset: Three
    offset: Three
    for_ordinary_screens: bool  # the rendition, not the base, is what an ordinary screen shows


def from_xmp(packet: bytes) -> GainMap | None:
    """Of Adobe's description (hdrgm); None where the packet holds none."""
    if not _values(packet, "Version", None):
        return None
    low, high = _values(packet, "GainMapMin", 0.0), _values(packet, "GainMapMax", 1.0)
    gamma = _values(packet, "Gamma", 1.0)
    sdr, hdr = _values(packet, "OffsetSDR", 1 / 64), _values(packet, "OffsetHDR", 1 / 64)
    if re.search(rb"BaseRenditionIsHDR\s*(=\s*[\"']|>)\s*true", packet, re.IGNORECASE):
        return GainMap(_negated(low), _negated(high), gamma, hdr, sdr, for_ordinary_screens=True)
    return GainMap(low, high, gamma, sdr, hdr, for_ordinary_screens=False)


def from_iso(box: bytes) -> GainMap | None:
    """Of ISO 21496-1's binary form; None where it is damaged or of another version."""
    try:
        version, _, flags = struct.unpack_from("!HHB", box)
        if version != _ISO_VERSION:
            return None
        return _Fractions(box, 5, shared=bool(flags & _COMMON_DENOMINATOR)).gain_map(
            channels=3 if flags & _MULTICHANNEL else 1
        )
    except (struct.error, ZeroDivisionError):
        return None


def apply(base: Image.Image, gains: Image.Image, mapping: GainMap) -> Image.Image:
    """The rendition, RGB, clipped to an ordinary screen and scaled down to a megapixel.

    base: RGB or L, taken for sRGB. gains: L or RGB of any size.
    """
    size = _bounded(base.size)
    pictures = base.convert("RGB").resize(size, Image.Resampling.BOX, reducing_gap=2.0).split()
    maps = gains.convert("RGB").resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0).split()
    bands = [_band(pictures[number], maps[number], mapping, number) for number in range(3)]
    return Image.merge("RGB", bands)


def matters(base: Image.Image, shown: Image.Image, mapping: GainMap) -> bool:
    """Whether the rendition is another picture. A bright screen's may be much brighter before it is."""
    stored = base.convert("RGB").resize(shown.size, Image.Resampling.BOX, reducing_gap=2.0)
    return mean_difference(stored, shown) > (_MUCH if mapping.for_ordinary_screens else _MUCH_BRIGHTER)


def _band(picture: Image.Image, gains: Image.Image, mapping: GainMap, number: int) -> Image.Image:
    low, high = mapping.low[number], mapping.high[number]
    exponent = 1 / max(mapping.gamma[number], 1e-3)
    factors = [
        2.0 ** min(max(low + (high - low) * (level / 255) ** exponent, -30.0), 30.0) for level in range(256)
    ]

    def rendition(args: dict[str, Any]) -> Any:
        linear = ((args["float"](args["picture"]) / 255 + 0.055) / 1.055) ** 2.4
        factor = args["factor"]
        light = (linear + mapping.base_offset[number]) * factor - mapping.offset[number]
        light = args["min"](args["max"](light, 0.0), 1.0)
        level = (light ** (1 / 2.4) * 1.055 - 0.055) * 255
        return args["convert"](args["max"](level, 0.0), "L")

    compute: Callable[..., Any] = ImageMath.lambda_eval
    return compute(rendition, picture=picture, factor=_looked_up(gains, factors))  # type: ignore[no-any-return]


def _looked_up(levels: Image.Image, table: Sequence[float]) -> Image.Image:
    """F: the table's value for each level of an L picture."""
    packed = [struct.pack("f", value) for value in table]
    return Image.frombytes("F", levels.size, b"".join([packed[level] for level in levels.tobytes()]))


def _bounded(size: tuple[int, int]) -> tuple[int, int]:
    width, height = size
    scale = min(1.0, (_PIXELS / (width * height)) ** 0.5)
    return max(1, round(width * scale)), max(1, round(height * scale))


def _negated(values: Three) -> Three:
    return -values[0], -values[1], -values[2]


def _values(packet: bytes, name: str, default: float | None) -> Three:
    """One number, or one each for R, G and B: an attribute, an element or a list in an element."""
    found = re.search(rb"hdrgm:" + name.encode() + rb"\s*=\s*[\"']([^\"']{1,40})[\"']", packet)
    numbers = [found[1]] if found else []
    if not found:
        element = re.search(
            rb"<hdrgm:" + name.encode() + rb"[^>]{0,200}>(.{1,600}?)</hdrgm:", packet, re.DOTALL
        )
        numbers = re.findall(rb">?\s*([-+0-9.eE]{1,40})\s*(?:<|$)", element[1]) if element else []
    values = [value for number in numbers if (value := _number(number)) is not None]
    if not values:
        return () if default is None else (default,) * 3  # type: ignore[return-value]
    return values[0], values[1 if len(values) == 3 else 0], values[2 if len(values) == 3 else 0]


def _number(text: bytes) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if abs(value) < 1e6 else None


class _Fractions:
    """Reads ISO 21496-1's fractions one after another."""

    def __init__(self, data: bytes, at: int, *, shared: bool) -> None:
        self._data = data
        self._at = at
        self._shared = self._take("!I") if shared else None

    def gain_map(self, *, channels: int) -> GainMap:
        base_brightness, brightness = self._fraction("!I"), self._fraction("!I")
        rows = [[self._fraction(kind) for kind in ("!i", "!i", "!I", "!i", "!i")] for _ in range(channels)]
        low, high, gamma, base_offset, offset = zip(*(rows if channels == 3 else rows * 3), strict=True)
        return GainMap(
            low, high, gamma, base_offset, offset, for_ordinary_screens=base_brightness > brightness
        )

    def _fraction(self, kind: str) -> float:
        numerator = self._take(kind)
        return numerator / (self._shared if self._shared is not None else self._take("!I"))

    def _take(self, kind: str) -> int:
        (value,) = struct.unpack_from(kind, self._data, self._at)
        self._at += 4
        return int(value)

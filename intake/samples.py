"""Samples of more than 8 bits to 8. Runs in a decoder child only."""

from PIL import Image


def to_eight_bits(image: Image.Image) -> Image.Image:
    """16 bits a sample are scaled by their range, not cut off at 255, which would whiten most pixels.

    32-bit integers and floats have no agreed range: they are stretched from their darkest to their lightest.
    """
    if image.mode.startswith("I;16"):
        return _bare(image.convert("I").point(lambda value: value * (1 / 257)).convert("L"))
    if image.mode not in ("I", "F"):
        return image
    low, high = _extrema(image)
    scale = 255 / (high - low) if high > low else 0.0
    return _bare(image.convert("F").point(lambda value: value * scale + (-low * scale)).convert("L"))


def _bare(image: Image.Image) -> Image.Image:
    image.info.pop("transparency", None)  # a key of more bits, which matches nothing any more
    return image


def _extrema(image: Image.Image) -> tuple[float, float]:
    low, high = image.getextrema()
    if isinstance(low, tuple) or isinstance(high, tuple) or not abs(low) + abs(high) < 1e30:
        raise ValueError("samples that are no finite numbers")
    return low, high

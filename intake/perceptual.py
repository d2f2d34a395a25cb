"""The PDQ hash: near-equal for pictures that look alike, whatever their size or format. In a decoder child only.

Made by the reference implementation's bindings (pdqhash), which need NumPy; both come with the extra `hash`.
"""

import numpy
import pdqhash  # type: ignore[import-untyped]  # ships no types
from PIL import Image

_SIDE = 512  # pixels; the reference scales larger pictures down to this before it hashes


def pdq(image: Image.Image) -> tuple[str, int]:
    """An RGB picture's hash, as 64 hexadecimal digits, and its quality from 0 to 100 (below 50: too featureless)."""
    small = image.resize((_SIDE, _SIDE), Image.Resampling.BILINEAR, reducing_gap=2.0)
    bits, quality = pdqhash.compute(numpy.asarray(small))
    return numpy.packbits(bits).tobytes().hex(), int(quality)

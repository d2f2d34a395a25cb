"""The picture that people are to see, and those that a decoder is to be shown instead: small, from the samples."""

from pathlib import Path

from PIL import Image

SAMPLES = Path(__file__).parents[2] / "samples"
SIZE = (96, 96)


def _small(name: str) -> Image.Image:
    with Image.open(SAMPLES / name) as image:
        return image.convert("RGB").resize(SIZE, Image.Resampling.BOX)


CONTENT = _small("astronaut.jpg")
DECOY = _small("brick-wall.jpg")


def grey(image: Image.Image) -> Image.Image:
    return image.convert("L")


def decoy_for(number: int) -> Image.Image:
    """A different one for each frame."""
    return DECOY.transpose(Image.Transpose(number % 4))

"""Further views of a large picture, scaled down: a judge scales them down anyway, and each costs as much as the first."""

from PIL import Image

MOST_PIXELS = 4_000_000


def bounded(image: Image.Image) -> Image.Image:
    """The picture with at most MOST_PIXELS."""
    pixels = image.width * image.height
    if pixels <= MOST_PIXELS:
        return image
    scale = (MOST_PIXELS / pixels) ** 0.5
    size = max(1, int(image.width * scale)), max(1, int(image.height * scale))
    return image.resize(size, Image.Resampling.BOX)

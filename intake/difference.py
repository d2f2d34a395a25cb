"""How much two pictures of one size differ. Runs in a decoder child only."""

from PIL import Image, ImageChops, ImageStat

_CELLS = (16, 16)


def mean_difference(one: Image.Image, other: Image.Image) -> float:
    """Mean absolute difference of two RGB pictures, in levels of 255."""
    return _mean(ImageChops.difference(one, other))


def worst_cell(one: Image.Image, other: Image.Image) -> float:
    """The same in the part that differs most, of 16 x 16: what is hidden may be small."""
    cells = ImageChops.difference(one, other).resize(_CELLS, Image.Resampling.BOX)
    data = cells.tobytes()
    return max(sum(data[at : at + 3]) for at in range(0, len(data), 3)) / 3


def _mean(difference: Image.Image) -> float:
    means = ImageStat.Stat(difference).mean
    return sum(means) / len(means)

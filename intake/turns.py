"""Pictures turned as their orientation asks. Runs in a decoder child only."""

from PIL import Image

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def turned(image: Image.Image, orientation: int) -> Image.Image:
    """The picture upright. orientation: as EXIF numbers them; any other number turns nothing."""
    turn = _UPRIGHT.get(orientation)
    return image if turn is None else image.transpose(turn)

"""Frames of an animation, drawn over one another as APNG has it. Runs in a decoder child only."""

from PIL import Image

_CLEAR, _RESTORE = 1, 2

Box = tuple[int, int, int, int]


class Canvas:
    """Begins see-through. drawn: how many frames were drawn on it."""

    def __init__(self, size: tuple[int, int]) -> None:
        self._image = Image.new("RGBA", size)
        self._before: Image.Image | None = None  # the part that the last frame covers, as it was
        self._last: tuple[Box, int] | None = None
        self.drawn = 0

    def draw(self, pixels: Image.Image, box: Box, disposal: int, *, over: bool) -> None:
        """One frame, RGBA, after the last one was disposed of. Raises ValueError where it lies outside."""
        if box[2] > self._image.width or box[3] > self._image.height:
            raise ValueError("a frame outside of its picture")
        self._dispose()
        self._before = self._image.crop(box) if disposal == _RESTORE else None
        self._last = box, disposal
        if over:
            self._image.alpha_composite(pixels, box[:2])
        else:
            self._image.paste(pixels, box[:2])
        self.drawn += 1

    def picture(self) -> Image.Image:
        """RGBA, or RGB where nothing shows through."""
        opaque = self._image.getchannel("A").getextrema() == (255, 255)
        return self._image.convert("RGB") if opaque else self._image.copy()

    def _dispose(self) -> None:
        if self._last is None:
            return
        box, disposal = self._last
        if disposal == _RESTORE and self._before is not None:
            self._image.paste(self._before, box[:2])
        elif disposal == _CLEAR:
            self._image.paste((0, 0, 0, 0), box)

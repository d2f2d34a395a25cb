"""One picture file whose header is read: what each format's module makes of its bytes. In a decoder child only."""

from collections.abc import Sequence
from io import BytesIO

from PIL import Image

from intake.colours import PLAIN, Colour

# Viewers show a frame of 10 ms and less for this long.
_SHORTEST_MS, _INSTEAD_MS = 10.0, 100.0


class Opened:
    """A file as Pillow opens it. Formats whose viewers see it otherwise derive from this.

    frames: still pictures in it that people may see one after another.
    durations_ms: how long each is shown, none where that is not known.
    always: indices that are judged whatever else is chosen; the first of them is what people see first.
    turns: EXIF orientations under which viewers show it, the most usual first.
    marks: what makes it worth a person's look, by the names of `Picture.marks`.
    """

    decoder = ""

    def __init__(self, data: bytes) -> None:
        """Raises what Pillow raises on a header that it cannot read."""
        self.data = data
        self.image = self.open(data)
        self.width, self.height = self.image.size
        self.frames = 1
        self.durations_ms: Sequence[float] = ()
        self.always: tuple[int, ...] = ()
        self.turns: tuple[int, ...] = (1,)
        self.colour: Colour = PLAIN
        self.marks: tuple[str, ...] = ()

    def open(self, data: bytes) -> Image.Image:
        return Image.open(BytesIO(data), formats=[self.decoder])

    def still(self, index: int) -> Image.Image:
        """One frame as it is stored: not turned, its colours untouched, transparency as alpha."""
        if self.frames > 1:
            self.image.seek(index)
        self.image.load()
        return self.image

    def is_plain(self) -> bool:
        """Whether every decoder makes the same of the bytes: upright, opaque RGB of 8 bits, one frame."""
        return False

    def further(self) -> Sequence[tuple[str, Image.Image]]:
        """Other pictures that some viewers show instead, RGB, each with its view's name."""
        return ()

    def close(self) -> None:
        self.image.close()


def shown_ms(durations_ms: Sequence[float]) -> list[float]:
    """How long viewers show frames that ask for these durations."""
    return [_INSTEAD_MS if duration <= _SHORTEST_MS else duration for duration in durations_ms]

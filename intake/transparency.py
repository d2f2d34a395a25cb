"""Pictures that show through, flattened as pages show them. Runs in a decoder child only."""

from collections.abc import Iterator

from PIL import Image

from intake.bounded import bounded

_WHITE, _BLACK = (255, 255, 255), (0, 0, 0)

_SEEN = 10  # levels of 255 that a page of another colour must change, for a person to see it
_FEWEST_PIXELS = 64  # 8 x 8: fewer show nothing that a person makes out
_NEARLY_OPAQUE = 224  # from here up, and without contrast, every page shows the same picture


def flatten(image: Image.Image) -> Iterator[tuple[str, Image.Image]]:
    """RGB of an RGBA picture: one, named "", or, where a page's colour shows, "on white" and "on black", bounded."""
    alpha = image.getchannel("A")
    if not shows_through(alpha):
        yield "", _over(image, alpha, _WHITE)
        return
    yield "on white", _over(image, alpha, _WHITE)
    small = bounded(image)
    yield "on black", _over(small, small.getchannel("A"), _BLACK)


def shows_through(alpha: Image.Image) -> bool:
    """Whether content can show on white or on black alone."""
    counts = alpha.histogram()
    if sum(counts[: 256 - _SEEN]) < _FEWEST_PIXELS:
        return False
    levels = [level for level, count in enumerate(counts) if count]
    return levels[0] <= _NEARLY_OPAQUE or levels[-1] - levels[0] >= _SEEN


def keyed(image: Image.Image, key: tuple[int, ...]) -> Image.Image:
    """An L or RGB picture whose pixels of one colour are see-through, as RGBA."""
    return with_holes(image, matching(image, key))


def matching(image: Image.Image, key: tuple[int, ...]) -> Image.Image:
    """L: 255 where every channel has its value of the key."""
    found: Image.Image | None = None
    for band, value in zip(image.split(), key, strict=True):
        hit = band.point([255 if level == value else 0 for level in range(256)])
        found = hit if found is None else _both(found, hit)
    assert found is not None, "a picture has a channel"
    return found


def with_holes(image: Image.Image, holes: Image.Image) -> Image.Image:
    """RGBA: see-through where holes is 255."""
    shown = image.convert("RGB")
    shown.putalpha(holes.point([255 - level for level in range(256)]))
    return shown


def _both(one: Image.Image, other: Image.Image) -> Image.Image:
    nothing = Image.new("L", one.size)
    nothing.paste(one, mask=other)
    return nothing


def _over(image: Image.Image, alpha: Image.Image, background: tuple[int, int, int]) -> Image.Image:
    flat = Image.new("RGB", image.size, background)
    flat.paste(image, mask=alpha)
    return flat

"""The boxes of an AVIF or HEIF file that say what is shown of it: the primary picture's properties, frames' durations."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

_MOST_ENTRIES = 10_000
_MOST_FRAMES = 100_000
_HEAD_BYTES = 8

Boxes = Iterator[tuple[bytes, memoryview]]


@dataclass(frozen=True)
class Aperture:
    """The part that is shown, in pixels of the stored picture; it need not lie at whole ones."""

    width: float
    height: float
    left_of_middle: float
    above_middle: float

    def box(self, size: tuple[int, int]) -> tuple[int, int, int, int] | None:
        """Within a picture of this size; None where it is none or does not lie within."""
        left = (size[0] - self.width) / 2 + self.left_of_middle
        top = (size[1] - self.height) / 2 + self.above_middle
        box = round(left), round(top), round(left + self.width), round(top + self.height)
        inside = 0 <= box[0] < box[2] <= size[0] and 0 <= box[1] < box[3] <= size[1]
        return box if inside else None


@dataclass(frozen=True)
class IsoMedia:
    """Of the primary item. code_points: primaries and transfer; None where the file names none."""

    aperture: Aperture | None = None
    code_points: tuple[int, int] | None = None
    durations_ms: list[float] = field(default_factory=list)


def read(data: bytes) -> IsoMedia:
    """What can be read; a damaged box ends the reading, since what decodes it is the judge of that."""
    aperture, points, durations = None, None, []
    try:
        for kind, content in _boxes(memoryview(data)):
            if kind == b"meta":
                aperture, points = _primary(content[4:])
            elif kind == b"moov":
                durations = _durations_ms(content)
    except (struct.error, IndexError, ZeroDivisionError):
        pass
    return IsoMedia(aperture, points, durations)


def _boxes(view: memoryview) -> Boxes:
    at = 0
    while at + _HEAD_BYTES <= len(view):
        (size,) = struct.unpack_from("!I", view, at)
        kind, head = bytes(view[at + 4 : at + 8]), _HEAD_BYTES
        if size == 1:
            (size,) = struct.unpack_from("!Q", view, at + 8)
            head = 16
        elif size == 0:
            size = len(view) - at
        if size < head:
            return
        yield kind, view[at + head : at + size]
        at += size


def _child(view: memoryview, *path: bytes) -> memoryview | None:
    for name in path:
        found = next((content for kind, content in _boxes(view) if kind == name), None)
        if found is None:
            return None
        view = found
    return view


def _primary(meta: memoryview) -> tuple[Aperture | None, tuple[int, int] | None]:
    item, aperture, points = _primary_item(meta), None, None
    properties = _child(meta, b"iprp", b"ipco")
    associations = _child(meta, b"iprp", b"ipma")
    if properties is None or associations is None:
        return None, None
    listed = list(_boxes(properties))
    for number in _properties_of(associations, item):
        if not 1 <= number <= len(listed):
            continue
        kind, content = listed[number - 1]
        if kind == b"clap" and aperture is None:
            aperture = _aperture(content)
        elif kind == b"colr" and bytes(content[:4]) == b"nclx" and points is None:
            points = struct.unpack_from("!HH", content, 4)
    return aperture, points


def _primary_item(meta: memoryview) -> int:
    content = _child(meta, b"pitm")
    if content is None:
        return 0
    return int(struct.unpack_from("!I" if content[0] else "!H", content, 4)[0])


def _properties_of(associations: memoryview, wanted: int) -> list[int]:
    version, wide = associations[0], bool(associations[3] & 1)
    (count,) = struct.unpack_from("!I", associations, 4)
    at = 8
    for _ in range(min(count, _MOST_ENTRIES)):
        (item,) = struct.unpack_from("!I" if version else "!H", associations, at)
        at += 4 if version else 2
        numbers = associations[at]
        at += 1
        step = 2 if wide else 1
        if item == wanted:
            mask = 0x7FFF if wide else 0x7F
            return [
                int.from_bytes(associations[at + step * n : at + step * (n + 1)], "big") & mask
                for n in range(numbers)
            ]
        at += step * numbers
    return []


def _aperture(content: memoryview) -> Aperture:
    numbers = struct.unpack_from("!IIIIiIiI", content)
    fractions = [numbers[at] / numbers[at + 1] for at in range(0, 8, 2)]
    return Aperture(*fractions)


def _durations_ms(movie: memoryview) -> list[float]:
    """Of the first track whose samples are timed."""
    for kind, track in _boxes(movie):
        header = _child(track, b"mdia", b"mdhd") if kind == b"trak" else None
        table = _child(track, b"mdia", b"minf", b"stbl", b"stts") if kind == b"trak" else None
        if header is None or table is None:
            continue
        (scale,) = struct.unpack_from("!I", header, 20 if header[0] else 12)
        (count,) = struct.unpack_from("!I", table, 4)
        durations: list[float] = []
        for number in range(min(count, _MOST_ENTRIES)):
            samples, ticks = struct.unpack_from("!II", table, 8 + 8 * number)
            durations += [1000 * ticks / scale] * min(samples, _MOST_FRAMES - len(durations))
        return durations
    return []

"""AVIF files with what Pillow does not write: a clean aperture, other code points."""

import struct


def with_aperture(data: bytes, box: tuple[int, int, int, int], size: tuple[int, int]) -> bytes:
    """A still AVIF that shows only this part of its picture: left, top, right, bottom, of this size."""
    left, top, right, bottom = box
    numbers = (right - left, 1, bottom - top, 1, left + right - size[0], 2, top + bottom - size[1], 2)
    clap = struct.pack("!I4sIIIIiIiI", 40, b"clap", *numbers)
    out, grown = bytearray(data), len(clap) + 1
    at_ipco, at_ipma = data.index(b"ipco") - 4, data.index(b"ipma") - 4
    count = sum(1 for _ in _boxes(data[at_ipco + 8 : at_ipco + _size(data, at_ipco)]))
    for name in (b"meta", b"iprp"):
        _grow(out, data.index(name) - 4, grown)
    _grow(out, at_ipco, len(clap))
    _grow(out, at_ipma, 1)
    at_first = at_ipma + 8 + 4 + 4  # past version, flags and the number of items
    out[at_first + 2] += 1
    end_ipma = at_ipma + _size(data, at_ipma)
    out[end_ipma:end_ipma] = bytes((0x80 | (count + 1),))  # essential
    end_ipco = at_ipco + _size(data, at_ipco)
    out[end_ipco:end_ipco] = clap
    _move(out, data.index(b"iloc") + 4, grown)
    return bytes(out)


def with_code_points(data: bytes, primaries: int, transfer: int) -> bytes:
    at = data.index(b"nclx") + 4
    return data[:at] + struct.pack("!HH", primaries, transfer) + data[at + 4 :]


def _boxes(content: bytes) -> list[int]:
    found, at = [], 0
    while at < len(content):
        found.append(at)
        at += _size(content, at)
    return found


def _size(data: bytes, at: int) -> int:
    return int(struct.unpack_from("!I", data, at)[0])


def _grow(data: bytearray, at: int, by: int) -> None:
    struct.pack_into("!I", data, at, _size(bytes(data), at) + by)


def _move(data: bytearray, at: int, by: int) -> None:
    """The one extent of the one item of a version 0 iloc: offsets and lengths of 4 bytes."""
    at_offset = at + 4 + 2 + 2 + 2 + 2 + 2
    struct.pack_into("!I", data, at_offset, struct.unpack_from("!I", data, at_offset)[0] + by)

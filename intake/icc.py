"""ICC profiles: read as browsers read them, and written for colours that a file names in another way.

Browsers (skcms) take the first tag of a name, ask for no device class and for no order. LittleCMS refuses a
profile for each of these, so that a picture would be judged without what people see it through. A profile is
therefore written anew, from the tags that count, before LittleCMS opens it.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass

MAX_BYTES = 16_000_000  # printers' profiles reach 3 MB

_HEADER_BYTES, _TAG_BYTES = 128, 12
_MAX_TAGS = 1_000
_D50 = (0.9642, 1.0, 0.8249)
_CURVES = (b"rTRC", b"gTRC", b"bTRC")
_COLORANTS = (b"rXYZ", b"gXYZ", b"bXYZ")
_LUTS = (b"A2B0", b"A2B1")  # the first that is there counts
_MATRIX_SPACES = {b"RGB ": (*_CURVES, *_COLORANTS), b"GRAY": (b"kTRC",)}

Matrix = tuple[tuple[float, ...], ...]  # three rows of three


class ProfileError(ValueError):
    """A profile that no browser can use."""


@dataclass(frozen=True)
class IccProfile:
    """data: a profile that LittleCMS opens. space: `RGB`, `GRAY` or `CMYK`. table: it is more than curves and a matrix."""

    data: bytes
    space: str
    table: bool = False


def read(data: bytes) -> IccProfile:
    """A stranger's profile, with the first of each tag that is used. Raises ProfileError."""
    if not _HEADER_BYTES + 4 <= len(data) <= MAX_BYTES or data[36:40] != b"acsp":
        raise ProfileError("no profile")
    space = data[16:20]
    tags = _first_tags(data)
    lut = next((tags[name] for name in _LUTS if name in tags), None)
    used: dict[bytes, bytes]
    if lut is not None and space in (b"RGB ", b"CMYK"):
        used = {b"A2B0": lut}
    elif space in _MATRIX_SPACES and all(name in tags for name in _MATRIX_SPACES[space]):
        used = {name: tags[name] for name in _MATRIX_SPACES[space]}
    else:
        raise ProfileError(f"nothing that can be used for {space!r}")
    used[b"wtpt"] = tags.get(b"wtpt", _xyz(_D50))
    # As of version 2, for which LittleCMS moves no black point; browsers move none for any.
    connection = data[20:24] if lut is not None else b"XYZ "
    header = _header(space, connection, version=b"\2\x40\0\0")
    return IccProfile(_assemble(header, used), space.decode("ascii").strip(), table=lut is not None)


def write(matrix: Matrix, curve: Sequence[float]) -> IccProfile:
    """A profile for RGB. matrix: linear RGB to XYZ under D50. curve: linear light at even steps, 0 to 1."""
    samples = (round(65535 * min(max(level, 0.0), 1.0)) for level in curve)
    trc = b"curv" + bytes(4) + struct.pack(f"!I{len(curve)}H", len(curve), *samples)
    tags = {name: _xyz([row[column] for row in matrix]) for column, name in enumerate(_COLORANTS)}
    tags |= dict.fromkeys(_CURVES, trc) | {b"wtpt": _xyz(_D50)}
    return IccProfile(_assemble(_header(b"RGB ", b"XYZ ", version=b"\4\x30\0\0"), tags), "RGB")


def _first_tags(data: bytes) -> dict[bytes, bytes]:
    (count,) = struct.unpack_from("!I", data, _HEADER_BYTES)
    tags: dict[bytes, bytes] = {}
    for number in range(min(count, _MAX_TAGS)):
        at = _HEADER_BYTES + 4 + number * _TAG_BYTES
        if at + _TAG_BYTES > len(data):
            break
        name, offset, size = struct.unpack_from("!4sII", data, at)
        if name not in tags and offset + size <= len(data):
            tags[name] = data[offset : offset + size]
    return tags


def _header(space: bytes, connection: bytes, *, version: bytes) -> bytes:
    """A screen's, whatever class the file names: browsers ask for none."""
    head = bytes(8) + version + b"mntr" + space + connection + bytes(12) + b"acsp" + bytes(28)
    return head + _s15f16(_D50) + bytes(_HEADER_BYTES - len(head) - 12)


def _assemble(header: bytes, tags: dict[bytes, bytes]) -> bytes:
    at = _HEADER_BYTES + 4 + _TAG_BYTES * len(tags)
    table, bodies = struct.pack("!I", len(tags)), b""
    for name, body in tags.items():
        table += struct.pack("!4sII", name, at + len(bodies), len(body))
        bodies += body + bytes(-len(body) % 4)
    whole = header + table + bodies
    return struct.pack("!I", len(whole)) + whole[4:]


def _xyz(values: Sequence[float]) -> bytes:
    return b"XYZ " + bytes(4) + _s15f16(values)


def _s15f16(values: Sequence[float]) -> bytes:
    limit = 2**31 - 1
    return struct.pack("!3i", *(min(max(round(value * 65536), -limit), limit) for value in values))

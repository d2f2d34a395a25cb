"""The orientation in an EXIF block, read as Chromium does: the first valid tag of the first directory counts."""

import struct

_ORIENTATION, _SHORT = 0x0112, 3
_ENTRY_BYTES = 12


def orientation(block: bytes) -> int:
    """1 to 8, as EXIF numbers them; 1 where the block holds none that viewers honour.

    block: begins with its TIFF header. A value that is a LONG, or that is more than one, is honoured by none.
    """
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(block[:4])
    if order is None:
        return 1
    try:
        (at,) = struct.unpack_from(order + "I", block, 4)
        (count,) = struct.unpack_from(order + "H", block, at)
        for entry in range(at + 2, at + 2 + count * _ENTRY_BYTES, _ENTRY_BYTES):
            tag, kind, values, value = struct.unpack_from(order + "HHIH", block, entry)
            if tag == _ORIENTATION and kind == _SHORT and values == 1 and 1 <= value <= 8:
                return int(value)
    except struct.error:
        pass
    return 1

"""ICC profiles for tests, written by hand: honest, odd, and made to be missed."""

import struct
from random import Random

_D50 = (0.9642, 1.0, 0.8249)
_SRGB = ((0.4361, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7141))  # red, green, blue


def _xyz(values: tuple[float, ...]) -> bytes:
    return b"XYZ " + bytes(4) + struct.pack("!3i", *(round(65536 * value) for value in values))


def gamma_curve(exponent: float) -> bytes:
    return b"para" + bytes(4) + struct.pack("!HHi", 0, 0, round(65536 * exponent))


def sampled_curve(levels: list[float]) -> bytes:
    return (
        b"curv"
        + bytes(4)
        + struct.pack(f"!I{len(levels)}H", len(levels), *(round(65535 * v) for v in levels))
    )


def spiked_curve(chance: Random) -> bytes:
    """The usual curve at every step-th level, and dark between."""
    step = chance.choice((17, 51, 15, 85, 3))
    return sampled_curve([(n / 255) ** 2.2 if n % step == 0 else 0.0 for n in range(256)])


def table(chance: Random) -> bytes:
    """An mft1 table for RGB that swaps or darkens."""
    grid = 9
    nodes = []
    dark, swap = chance.random() < 0.5, chance.random() < 0.5
    for r in range(grid):
        for g in range(grid):
            for b in range(grid):
                level = (r + g + b) / (3 * (grid - 1)) * (0.2 if dark else 1.0)
                nodes += [
                    round(255 * level),
                    128 + (40 * (b - r) if swap else 40 * (r - b)) // ((grid - 1) // 2),
                    128,
                ]
    identity = bytes(range(256))
    matrix = struct.pack("!9i", *(65536 if n % 4 == 0 else 0 for n in range(9)))
    return b"mft1" + bytes(4) + bytes((3, 3, grid, 0)) + matrix + identity * 3 + bytes(nodes) + identity * 3


def assemble(
    tags: list[tuple[bytes, bytes]],
    *,
    space: bytes = b"RGB ",
    connection: bytes = b"XYZ ",
    kind: bytes = b"mntr",
    version: bytes = b"\4\x30\0\0",
) -> bytes:
    at = 128 + 4 + 12 * len(tags)
    directory, bodies = struct.pack("!I", len(tags)), b""
    for name, body in tags:
        directory += struct.pack("!4sII", name, at + len(bodies), len(body))
        bodies += body + bytes(-len(body) % 4)
    header = bytes(8) + version + kind + space + connection + bytes(12) + b"acsp" + bytes(28)
    header += struct.pack("!3i", *(round(65536 * v) for v in _D50))
    whole = header.ljust(128, b"\0") + directory + bodies
    return struct.pack("!I", len(whole)) + whole[4:]


def random_profile(chance: Random, space: bytes) -> bytes:
    """Honest or not: curves, columns, a table; tags twice, odd classes and versions, damaged headers."""
    curve = chance.choice(
        (gamma_curve(1.0), gamma_curve(2.2), gamma_curve(2.2), gamma_curve(6.0), gamma_curve(0.4))
    )
    if chance.random() < 0.3:
        curve = spiked_curve(chance)
    if space == b"GRAY":
        tags = [(b"kTRC", curve), (b"wtpt", _xyz(_D50))]
    else:
        columns = list(_SRGB)
        if chance.random() < 0.3:
            chance.shuffle(columns)
        tags = [
            (name, _xyz(column)) for name, column in zip((b"rXYZ", b"gXYZ", b"bXYZ"), columns, strict=True)
        ]
        tags += [(name, curve) for name in (b"rTRC", b"gTRC", b"bTRC")] + [(b"wtpt", _xyz(_D50))]
    connection = b"XYZ "
    if space == b"RGB " and chance.random() < 0.15:
        # Chromium goes through the curves too, and loses what they cannot hold: usual ones hold all.
        tags = [(name, gamma_curve(2.2) if name.endswith(b"TRC") else body) for name, body in tags]
        tags.append((b"A2B0", table(chance)))
        connection = b"Lab "
    if chance.random() < 0.2:  # a tag twice: the first one counts
        name = chance.choice(tags)[0]
        tags.append((name, gamma_curve(9.0) if name.endswith(b"TRC") else _xyz((0.1, 0.1, 0.1))))
    if chance.random() < 0.2:
        chance.shuffle(tags)
    kind = chance.choice((b"mntr", b"mntr", b"scnr", b"abst", b"spac", b"prtr", b"????"))
    version = chance.choice((b"\4\x30\0\0", b"\2\x10\0\0", b"\4\x40\0\0"))
    profile = assemble(tags, space=space, connection=connection, kind=kind, version=version)
    if chance.random() < 0.1:
        return profile[: chance.randrange(len(profile))]
    return profile

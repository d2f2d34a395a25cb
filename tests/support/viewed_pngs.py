"""PNGs that show people one picture and may show a decoder another: drawn by chance, from the kinds that are known."""

import struct
import zlib
from collections.abc import Callable
from random import Random

from PIL import Image

from tests.support.pictures import chunk, encode
from tests.support.profiles import random_profile
from tests.support.viewed_content import CONTENT, DECOY, decoy_for, grey

SIGNATURE = b"\x89PNG\r\n\x1a\n"
GREY, RGB, PALETTE, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6
CHANNELS = {GREY: 1, RGB: 3, PALETTE: 1, GREY_ALPHA: 2, RGBA: 4}


def header(size: tuple[int, int], bits: int, colour: int) -> bytes:
    return chunk(b"IHDR", struct.pack("!IIBBBBB", *size, bits, colour, 0, 0, 0))


def pixels(rows: list[bytes], kind: bytes = b"IDAT") -> bytes:
    return chunk(kind, zlib.compress(b"".join(b"\0" + row for row in rows), 6))


def file(*chunks: bytes) -> bytes:
    return SIGNATURE + b"".join(chunks) + chunk(b"IEND", b"")


def parts(data: bytes) -> list[bytes]:
    """A PNG's chunks, whole, IEND left out."""
    found, at = [], len(SIGNATURE)
    while at < len(data):
        (length,) = struct.unpack("!I", data[at : at + 4])
        found.append(data[at : at + 12 + length])
        at += 12 + length
    return [part for part in found if part[4:8] != b"IEND"]


def spoilt(whole: bytes) -> bytes:
    """A chunk with a wrong checksum."""
    return whole[:-1] + bytes((whole[-1] ^ 1,))


def _exif(chance: Random) -> bytes:
    kind, value = chance.choice((3, 3, 3, 4, 1)), chance.choice((1, 2, 3, 6, 8, 9))
    packed = struct.pack(">HH", value, 0) if kind == 3 else struct.pack(">I", value)
    return b"MM\0*\0\0\0\x08" + struct.pack(">HHHI", 1, 0x112, kind, 1) + packed + bytes(4)


def _iccp(chance: Random) -> bytes:
    profile = random_profile(chance, chance.choice((b"RGB ", b"RGB ", b"GRAY")))
    packed = zlib.compress(profile)
    return (
        b"p\0"
        + chance.choice((b"\0", b"\0", b"\0", b"\1"))
        + (packed if chance.random() < 0.9 else packed[:-9])
    )


def _cicp(chance: Random) -> bytes:
    primaries, transfer = chance.choice((1, 1, 2, 4, 9, 11, 12)), chance.choice((1, 4, 8, 13, 13, 2, 99))
    return bytes((primaries, transfer, chance.choice((0, 0, 0, 1)), chance.choice((1, 1, 1, 0))))


def _chrm(chance: Random) -> bytes:
    choices = (
        (31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000),
        (31270, 32900, 30000, 60000, 15000, 6000, 64000, 33000),
        (31270, 32900, 73470, 26530, 11420, 82620, 12640, 1),
    )
    return struct.pack("!8I", *chance.choice(choices))


ANCILLARY: dict[bytes, Callable[[Random], bytes]] = {
    b"gAMA": lambda chance: struct.pack(
        "!I", chance.choice((1, 2000, 10000, 45455, 55000, 100000, 220000, 0))
    ),
    b"cHRM": _chrm,
    b"sRGB": lambda chance: bytes((chance.choice((0, 1, 3, 4)),)),
    b"iCCP": _iccp,
    b"cICP": _cicp,
    b"eXIf": _exif,
    b"sBIT": lambda chance: bytes(chance.choice((1, 5, 8)) for _ in range(chance.choice((1, 2, 3, 4)))),
    b"tEXt": lambda chance: b"a\0b",
    b"acTL": lambda chance: struct.pack("!II", chance.choice((0, 1, 2)), 0),
}


def sprinkled(chance: Random, data: bytes, kinds: tuple[bytes, ...]) -> bytes:
    """A PNG with further chunks anywhere: repeated, misplaced, with wrong checksums and lengths."""
    found = parts(data)
    for _ in range(chance.randint(1, 4)):
        kind = chance.choice(kinds)
        content = ANCILLARY[kind](chance)
        if chance.random() < 0.1:
            content = content[: chance.randrange(len(content) + 1)]
        whole = chunk(kind, content)
        found.insert(chance.randint(1, len(found)), spoilt(whole) if chance.random() < 0.15 else whole)
    return file(*found)


def coloured(chance: Random) -> bytes:
    """Colour chunks in any order and number, on each kind of pixels."""
    mode = chance.choice(("RGB", "RGB", "L", "P", "RGBA", "LA"))
    image = CONTENT.convert(mode)
    return sprinkled(chance, encode(image, "PNG"), (b"gAMA", b"cHRM", b"sRGB", b"iCCP", b"cICP"))


def turned(chance: Random) -> bytes:
    return sprinkled(chance, encode(CONTENT, "PNG"), (b"eXIf", b"tEXt", b"sBIT", b"acTL"))


def keyed(chance: Random) -> bytes:
    """A key of transparency at any depth, once or more, near the one that counts."""
    colour, bits = chance.choice(
        ((GREY, 1), (GREY, 2), (GREY, 4), (GREY, 8), (GREY, 16), (RGB, 8), (RGB, 16))
    )
    holes = grey(CONTENT).point(lambda level: 255 if level > chance.choice((90, 128)) else 0)
    top, width, height = 2**bits - 1, *CONTENT.size
    key, other = top, max(top - 1, 0)
    samples = [key if level else other for level in holes.tobytes()]
    rows = [_row(samples[y * width : (y + 1) * width], bits, CHANNELS[colour]) for y in range(height)]
    keys = [_key(chance, value, colour) for value in chance.choices((key, other, 0), k=chance.randint(1, 3))]
    before = [
        spoilt(chunk(b"tRNS", value)) if chance.random() < 0.1 else chunk(b"tRNS", value) for value in keys
    ]
    after = [before.pop()] if chance.random() < 0.4 else []
    return file(header(CONTENT.size, bits, colour), *before, pixels(rows), *after)


def _key(chance: Random, value: int, colour: int) -> bytes:
    data = struct.pack("!H", value) * CHANNELS[colour]
    return data if chance.random() < 0.9 else data[: chance.choice((1, len(data)))]


def _row(samples: list[int], bits: int, channels: int) -> bytes:
    if bits == 16:
        return b"".join(struct.pack("!H", sample) * channels for sample in samples)
    if bits == 8:
        return b"".join(bytes((sample,)) * channels for sample in samples)
    whole = int("".join(f"{sample:0{bits}b}" for sample in samples), 2)
    return whole.to_bytes(len(samples) * bits // 8, "big")


def palettes(chance: Random) -> bytes:
    """Transparency of a palette, before it, twice, or behind the pixels."""
    image = grey(CONTENT).quantize(16)
    found = parts(encode(image, "PNG"))
    for _ in range(chance.randint(1, 3)):
        alpha = bytes(chance.choice((0, 128, 255)) for _ in range(chance.randint(1, 16)))
        found.insert(chance.randint(1, len(found)), chunk(b"tRNS", alpha))
    if chance.random() < 0.2:
        found.insert(chance.randint(2, len(found)), chunk(b"sBIT", b"\5\5\5"))
    return file(*found)


def alpha(chance: Random) -> bytes:
    """The picture in the alpha channel: faint, small, or whole."""
    low = chance.choice((0, 100, 200, 225, 240, 250))
    channel = grey(CONTENT).point(lambda level: low + level * (255 - low) // 255)
    if chance.random() < 0.3:  # a small part of a larger picture
        small = channel.resize((20, 20))
        channel = Image.new("L", (300, 300), 255)
        channel.paste(small, (chance.randrange(280), chance.randrange(280)))
    image = Image.new("L", channel.size, chance.choice((255, 255, 0, 128)))
    return encode(Image.merge("LA", (image, channel)), "PNG")


def animated(chance: Random) -> bytes:
    """Controls that are repeated, misplaced or wrong; the picture is one frame of several."""
    count = chance.randint(1, 5)
    shown = chance.randrange(count)
    durations = [chance.choice((0, 1, 2)) for _ in range(count)]
    durations[shown] = 60_000
    size, sequence, frames = CONTENT.size, 0, []
    hidden_default = chance.random() < 0.4
    for number in range(count):
        image = CONTENT if number == shown else decoy_for(number)
        control = struct.pack(
            "!IIIIIHHBB", sequence, *size, 0, 0, durations[number], 1000, chance.choice((0, 0, 1, 2)), 0
        )
        frames.append(chunk(b"fcTL", control))
        sequence += 1
        rows = _rows(image)
        if number == 0 and not hidden_default:
            frames.append(chunk(b"IDAT", zlib.compress(rows)))
        else:
            frames.append(chunk(b"fdAT", struct.pack("!I", sequence) + zlib.compress(rows)))
            sequence += 1
    if hidden_default:
        frames.insert(0, chunk(b"IDAT", zlib.compress(_rows(DECOY))))
    declared = [count, chance.choice((1, 0, count + 1, count, 2**31))]
    controls = [chunk(b"acTL", struct.pack("!II", value, 0)) for value in declared[: chance.randint(1, 2)]]
    if chance.random() < 0.15:
        frames.append(controls.pop())
    return file(header(size, 8, RGB), *controls, *frames)


def _rows(image: Image.Image) -> bytes:
    data, stride = image.tobytes(), 3 * image.width
    return b"".join(b"\0" + data[at : at + stride] for at in range(0, len(data), stride))


def sixteen(chance: Random) -> bytes:
    """16 bits a sample, with colour chunks."""
    data, width = CONTENT.tobytes(), CONTENT.width
    wide = b"".join(bytes((value, chance.randrange(256))) for value in data)
    rows = [wide[at : at + 6 * width] for at in range(0, len(wide), 6 * width)]
    plain = file(header(CONTENT.size, 16, RGB), pixels(rows))
    return sprinkled(chance, plain, (b"gAMA", b"cICP", b"iCCP", b"sRGB"))

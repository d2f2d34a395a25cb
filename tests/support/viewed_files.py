"""Files of the other formats that show people one picture and may show a decoder another, drawn by chance."""

import io
import struct
from collections.abc import Callable
from random import Random

import pillow_heif
from PIL import Image

from tests.support import viewed_pngs
from tests.support.pictures import encode
from tests.support.profiles import random_profile
from tests.support.viewed_content import CONTENT, DECOY, decoy_for, grey

_XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b'<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="%d"/></rdf:RDF></x:xmpmeta>'
)


def segment(marker: int, content: bytes) -> bytes:
    return b"\xff" + bytes((marker,)) + struct.pack("!H", 2 + len(content)) + content


def exif(chance: Random) -> bytes:
    order, kind = chance.choice("<>"), chance.choice((3, 3, 3, 4))
    values = [chance.choice((1, 3, 6, 8, 2, 9, 0)) for _ in range(chance.choice((1, 1, 2)))]
    entries = b"".join(
        struct.pack(order + "HHI", 0x112, kind, chance.choice((1, 1, 1, 2)))
        + (struct.pack(order + "HH", value, 0) if kind == 3 else struct.pack(order + "I", value))
        for value in values
    )
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    return head + struct.pack(order + "H", len(values)) + entries + bytes(4)


def jpeg_turned(chance: Random) -> bytes:
    data = encode(CONTENT, "JPEG", quality=92)
    segments = b""
    for _ in range(chance.randint(1, 3)):
        choices = (
            segment(0xE1, b"Exif\0\0" + exif(chance)),
            segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + _XMP % chance.choice((3, 6))),
            segment(0xE1, b"Exif\0\0junk"),
        )
        segments += chance.choice(choices)
    at = chance.choice((2, data.index(b"\xff\xdb"), data.index(b"\xff\xda"), len(data) - 2))
    return data[:at] + segments + data[at:]


def jpeg_profiled(chance: Random) -> bytes:
    """Profiles in one part or several: repeated, missing, miscounted, of another colour space."""
    image = chance.choice((CONTENT, CONTENT, grey(CONTENT)))
    data = encode(image, "JPEG", quality=92)
    found = []
    for _ in range(chance.choice((1, 1, 2))):
        profile = random_profile(chance, b"GRAY" if image.mode == "L" and chance.random() < 0.7 else b"RGB ")
        count = chance.choice((1, 1, 2, 3))
        length = -(-len(profile) // count)
        found += [
            segment(0xE2, b"ICC_PROFILE\0" + bytes((n + 1, count)) + profile[n * length : (n + 1) * length])
            for n in range(count)
        ]
    if chance.random() < 0.3:
        chance.shuffle(found)
    if chance.random() < 0.1:
        found.pop()
    return data[:2] + b"".join(found) + data[2:]


def gain_mapped(chance: Random) -> bytes:
    """A base and a map that makes the content of it, on an ordinary screen."""
    size = CONTENT.size
    base = encode(Image.new("RGB", size, (128, 128, 128)), "JPEG", quality=95)
    gains = encode(grey(CONTENT) if chance.random() < 0.5 else CONTENT, "JPEG", quality=92)
    low, high = chance.choice((-3.0, -2.0)), chance.choice((2.0, 3.0))
    is_hdr = chance.random() < 0.8
    described = (
        b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        b'<rdf:Description rdf:about="" xmlns:hdrgm="http://ns.adobe.com/hdr-gain-map/1.0/" hdrgm:Version="1.0" '
        b'hdrgm:GainMapMin="%g" hdrgm:GainMapMax="%g" hdrgm:Gamma="%g" hdrgm:OffsetSDR="0.015625" '
        b'hdrgm:OffsetHDR="0.015625" hdrgm:HDRCapacityMin="0" hdrgm:HDRCapacityMax="3" '
        b'hdrgm:BaseRenditionIsHDR="%s"/></rdf:RDF></x:xmpmeta>'
    ) % (low, high, chance.choice((1.0, 0.7)), b"True" if is_hdr else b"False")
    gains = gains[:2] + segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + described) + gains[2:]
    listed = (
        b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        b'<rdf:Description rdf:about="" xmlns:Container="http://ns.google.com/photos/1.0/container/" '
        b'xmlns:Item="http://ns.google.com/photos/1.0/container/item/" '
        b'xmlns:hdrgm="http://ns.adobe.com/hdr-gain-map/1.0/" hdrgm:Version="1.0"><Container:Directory><rdf:Seq>'
        b'<rdf:li rdf:parseType="Resource"><Container:Item Item:Semantic="Primary" Item:Mime="image/jpeg"/></rdf:li>'
        b'<rdf:li rdf:parseType="Resource"><Container:Item Item:Semantic="GainMap" Item:Mime="image/jpeg" '
        b'Item:Length="%d"/></rdf:li></rdf:Seq></Container:Directory></rdf:Description></rdf:RDF></x:xmpmeta>'
    ) % len(gains)
    first = base[:2] + segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + listed)
    rest = base[2:]
    index_at = len(first) + 4 + 4  # of the byte order, from which offsets count
    length = len(first) + 90 + len(rest)
    entries = struct.pack(">IIIHH", 0x30000, length, 0, 0, 0) + struct.pack(
        ">IIIHH", 0, len(gains), length - index_at, 0, 0
    )
    index = b"MPF\0MM\0*\0\0\0\x08" + struct.pack(">H", 3)
    index += struct.pack(">HHI4s", 0xB000, 7, 4, b"0100") + struct.pack(">HHII", 0xB001, 4, 1, 2)
    index += struct.pack(">HHII", 0xB002, 7, 32, 50) + bytes(4) + entries
    return first + segment(0xE2, index) + rest + gains


def gif(chance: Random) -> bytes:
    """Frames on a larger screen, uncovered, cleared, restored; controls twice; one that is shown for long."""
    count, width, height = chance.randint(1, 4), *CONTENT.size
    screen = (width + chance.choice((0, 0, 20)), height + chance.choice((0, 0, 20)))
    table = grey(CONTENT).quantize(16).getpalette()[:48]
    background, has_background = chance.randrange(16), chance.random() < 0.9
    data = b"GIF89a" + struct.pack("<HHBBB", *screen, 0xF3 if has_background else 0x73, background, 0)
    data += bytes(table) if has_background else b""
    shown = chance.randrange(count)
    for number in range(count):
        delay = 6000 if number == shown else chance.choice((0, 1))
        for _ in range(chance.choice((1, 1, 2))):
            flags = chance.choice((0, 1, 2, 3)) << 2 | chance.choice((0, 1))
            data += b"\x21\xf9\4" + struct.pack("<BHB", flags, delay, chance.randrange(16)) + b"\0"
        image = (CONTENT if number == shown else decoy_for(number)).convert("L").quantize(16)
        if chance.random() < 0.4:
            image = image.crop((0, 0, width // 2, height // 2))
        single = encode(image, "GIF")
        at = single.index(b"\x2c", 13 + 48)
        offset = struct.pack("<HH", chance.choice((0, 0, 10)), chance.choice((0, 0, 10)))
        size = struct.pack("<HH", *image.size)
        own = bytes(image.getpalette()[:48])
        body = single[at + 10 : -1]
        data += b"\x2c" + offset + size + b"\x83" + own + body
    return data + b";"


def webp(chance: Random) -> bytes:
    count = chance.randint(1, 5)
    shown = chance.randrange(count)
    frames = [CONTENT if n == shown else decoy_for(n) for n in range(count)]
    durations = [60_000 if n == shown else chance.choice((1, 2, 10)) for n in range(count)]
    if count == 1:
        image = CONTENT if chance.random() < 0.5 else _in_alpha()
        lossless = chance.random() < 0.5
        options = {"exif": exif(chance)} if chance.random() < 0.4 else {}
        if chance.random() < 0.4:
            options["icc_profile"] = random_profile(chance, b"RGB ")
        data = bytearray(encode(image, "WEBP", lossless=lossless, quality=92, exact=True, **options))
        _flip_flags(chance, data)
        return bytes(data)
    return encode(frames[0], "WEBP", save_all=True, append_images=frames[1:], duration=durations, quality=90)


def _flip_flags(chance: Random, data: bytearray) -> None:
    if data[12:16] == b"VP8X" and chance.random() < 0.5:
        data[20] ^= chance.choice((0x10, 0x20, 0x08))
    if data[12:16] == b"VP8L" and chance.random() < 0.5:
        data[24] ^= 0x10


def _in_alpha() -> Image.Image:
    image = Image.new("RGB", CONTENT.size, "white")
    image.putalpha(grey(CONTENT))
    return image


def bmp(chance: Random) -> bytes:
    """Headers of each age, alpha masks, profiles, 16 and 32 bits."""
    width, height = CONTENT.size
    size = chance.choice((40, 52, 56, 108, 124))
    bits = chance.choice((16, 32, 32))
    compression = chance.choice((0, 3))
    masks = (0xFF0000, 0xFF00, 0xFF) if bits == 32 else (0x7C00, 0x3E0, 0x1F)
    alpha_mask = chance.choice((0, 0xFF000000 if bits == 32 else 0x8000))
    levels = grey(CONTENT).tobytes()
    top = chance.random() < 0.3
    rows = [levels[y * width : (y + 1) * width] for y in range(height)]
    if not top:
        rows.reverse()
    packed = b"".join(_bmp_pixel(level, bits) for row in rows for level in row)
    profile = random_profile(chance, b"RGB ") if size == 124 else b""
    head = struct.pack(
        "<IiiHHIIiiII", size, width, -height if top else height, 1, bits, compression, len(packed), 0, 0, 0, 0
    )
    more = struct.pack("<4I", *masks, alpha_mask)
    if size == 40:
        more = more[:12] if compression == 3 else b""
    elif size < 108:
        more = more[: size - 40]
    else:
        space = chance.choice((0x73524742, 0x57696E20, 0x4D424544 if profile else 0x73524742))
        more += struct.pack("<I", space) + bytes(48)
    if size == 124:
        more += struct.pack("<IIII", 4, size + len(packed), len(profile), 0)
    start = 14 + len(head) + len(more)
    return (
        b"BM"
        + struct.pack("<IHHI", start + len(packed) + len(profile), 0, 0, start)
        + head
        + more
        + packed
        + profile
    )


def _bmp_pixel(level: int, bits: int) -> bytes:
    """White where the picture is in the alpha channel."""
    if bits == 32:
        return bytes((255, 255, 255, level))
    return struct.pack("<H", 0x7FFF | (0x8000 if level > 100 else 0))


def bmp_runs(chance: Random) -> bytes:
    """RLE8 that skips what is light: a silhouette on a page."""
    width, height = CONTENT.size
    levels = grey(CONTENT).tobytes()
    bound = chance.choice((60, 100, 140))
    data = b""
    for y in reversed(range(height)):
        x = 0
        while x < width:
            dark = levels[y * width + x] < bound
            end = x
            while end < width and (levels[y * width + end] < bound) == dark and end - x < 255:
                end += 1
            data += bytes((end - x, 1)) if dark else bytes((0, 2, end - x, 0))
            x = end
        data += b"\0\0"
    data += b"\0\1"
    palette = b"".join(bytes((n, n, n, 0)) for n in (255, 250, 0, 9)) + bytes(4 * 252)
    head = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(data), 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", 54 + 1024 + len(data), 0, 0, 54 + 1024) + head + palette + data


def avif(chance: Random) -> bytes:
    """Animated with a long frame, turned, with a profile."""
    count = chance.choice((1, 1, 2, 4))
    if count == 1:
        options = {"exif": exif(chance)} if chance.random() < 0.5 else {}
        if chance.random() < 0.5:
            options["icc_profile"] = random_profile(chance, b"RGB ")
        return encode(CONTENT, "AVIF", quality=90, speed=9, **options)
    shown = chance.randrange(count)
    frames = [CONTENT if n == shown else DECOY for n in range(count)]
    durations = [60_000 if n == shown else 20 for n in range(count)]
    return encode(
        frames[0], "AVIF", save_all=True, append_images=frames[1:], duration=durations, quality=90, speed=9
    )


def heic(primary: int, count: int = 4) -> bytes:
    """Several pictures, of which one is the primary: the content; the others are decoys."""
    file = pillow_heif.HeifFile()
    for number in range(count):
        file.add_from_pillow(CONTENT if number == primary else decoy_for(number))
    target = io.BytesIO()
    file.save(target, quality=90, primary_index=primary)
    return target.getvalue()


KINDS: dict[str, Callable[[Random], bytes]] = {
    "png colours": viewed_pngs.coloured,
    "png 16 bits": viewed_pngs.sixteen,
    "png orientation": viewed_pngs.turned,
    "png key": viewed_pngs.keyed,
    "png palette": viewed_pngs.palettes,
    "png alpha": viewed_pngs.alpha,
    "apng": viewed_pngs.animated,
    "jpeg orientation": jpeg_turned,
    "jpeg profile": jpeg_profiled,
    "jpeg gain map": gain_mapped,
    "gif": gif,
    "webp": webp,
    "bmp": bmp,
    "bmp runs": bmp_runs,
    "avif": avif,
}

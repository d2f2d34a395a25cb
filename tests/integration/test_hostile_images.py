"""Files made to hurt a decoder: each ends decoded or with a code, in time, and the worker lives."""

import random
import struct
import sys
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image

from intake.decode import Decoder
from intake.settings import DecodeSettings
from moderation.errors import DecodeTimeout, TooManyPixels, Undecodable, UnsupportedType
from tests.support import pillow_images
from tests.support.pictures import (
    animation,
    chunk,
    cyclic_tiff,
    deep_tiff,
    encode,
    gif_of_many_frames,
    png,
    quarters,
    turned,
)

DECODE_S = 10
CHILD_BYTES = 1_000_000_000


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    decoder = Decoder(DecodeSettings(children=2))
    yield decoder
    decoder.close()


def outcome(decoder: Decoder, data: bytes) -> tuple[str, float]:
    """`decoded` or a refusal's code, and how long it took in seconds. Any other error fails the test.

    A machine too busy to tell is asked a second time, as a worker does.
    """
    started = time.monotonic()
    try:
        try:
            picture = decoder.decode(data, pixels=False)
        except DecodeTimeout:
            started = time.monotonic()
            picture = decoder.decode(data, pixels=False)
    except (UnsupportedType, Undecodable, TooManyPixels) as refusal:
        return refusal.code, time.monotonic() - started
    assert picture.views
    return "decoded", time.monotonic() - started


def peak_bytes(decoder: Decoder) -> int:
    """The most memory that a living child ever held."""
    lines = [line for pid in decoder.pids for line in Path(f"/proc/{pid}/status").read_text().splitlines()]
    return max(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


@pytest.mark.timeout(600)  # the download takes a minute, once
def test_each_of_pillows_own_test_images_ends_decoded_or_with_a_code(decoder: Decoder) -> None:
    reason = pillow_images.download()
    if reason is not None:
        pytest.skip(reason)
    decoder.decode(encode(quarters(), "PNG"), pixels=False)
    with ThreadPoolExecutor(2) as threads:
        ended = {name: threads.submit(outcome, decoder, data) for name, data in pillow_images.images()}
        ends = {name: one.result() for name, one in ended.items()}
    codes = Counter(code for code, _ in ends.values())
    assert len(ends) > 1000
    assert codes["decoded"] > 650
    assert set(codes) == {"decoded", "unsupported_type", "undecodable", "too_many_pixels"}
    slowest_s, name = max((took_s, name) for name, (_, took_s) in ends.items())
    assert slowest_s < DECODE_S, name
    if sys.platform == "linux":
        assert peak_bytes(decoder) < CHILD_BYTES


def jpeg_of_many_scans(scans: int) -> bytes:
    """A progressive JPEG of 4 megapixels whose last scan is sent again and again."""
    data = encode(Image.effect_noise((2000, 2000), 20), "JPEG", progressive=True, quality=20)
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * scans + data[-2:]


def jpeg_claiming(width: int, height: int) -> bytes:
    data = bytearray(encode(quarters(), "JPEG"))
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack("!HH", height, width)
    return bytes(data)


def gif_claiming(width: int, height: int) -> bytes:
    data = bytearray(encode(quarters().convert("P"), "GIF"))
    data[6:10] = struct.pack("<HH", width, height)
    return bytes(data)


def bmp_claiming(width: int, height: int) -> bytes:
    data = bytearray(encode(quarters(), "BMP"))
    data[18:26] = struct.pack("<ii", width, height)
    return bytes(data)


def webp_claiming(width: int, height: int) -> bytes:
    data = bytearray(encode(animation_seed(), "WEBP", save_all=True, append_images=[quarters()]))
    at = data.index(b"VP8X")
    data[at + 12 : at + 18] = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return bytes(data)


def animation_seed() -> Image.Image:
    return Image.new("RGB", (96, 64), "white")


def tiff_claiming(width: int, height: int) -> bytes:
    tags = [
        (256, 4, width),
        (257, 4, height),
        (258, 3, 8),
        (259, 3, 1),
        (262, 3, 1),
        (273, 4, 8),
        (278, 4, height),
    ]
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)


ZEROES = zlib.compress(bytes(200_000_000), 9)

BOMBS = {
    "a PNG of 900 megapixels in 120 kB": (lambda: png(30_000, 30_000), {"too_many_pixels"}),
    "a PNG of one row of 2^31 pixels": (lambda: png(2**31 - 1, 1, rows=b""), {"too_many_pixels"}),
    "a PNG that is all it may be": (lambda: png(7_000, 7_142, bits=8, colour=6), {"decoded"}),
    "a PNG of 16 bits that is all it may be": (lambda: png(7_000, 7_142, bits=16, colour=0), {"decoded"}),
    "a JPEG claiming 65535 x 65535": (lambda: jpeg_claiming(65_535, 65_535), {"too_many_pixels"}),
    "a JPEG claiming what it may, and empty": (lambda: jpeg_claiming(7_000, 7_000), {"decoded"}),
    "a JPEG of 400 scans": (lambda: jpeg_of_many_scans(400), {"undecodable", "decoded"}),
    "a GIF claiming 65535 x 65535": (lambda: gif_claiming(65_535, 65_535), {"too_many_pixels"}),
    "a GIF of 10,000 frames": (lambda: gif_of_many_frames(10_000, (8, 8)), {"too_many_pixels"}),
    "a GIF of 900 frames of a megapixel": (lambda: gif_of_many_frames(900, (1000, 1000)), {"too_many_pixels"}),
    "a BMP claiming 2^31 pixels a side": (lambda: bmp_claiming(2**31 - 1, 2**31 - 1), {"too_many_pixels"}),
    "a BMP claiming a height below nothing": (lambda: bmp_claiming(1, -(2**31)), {"too_many_pixels", "undecodable"}),
    "a WebP claiming 16384 x 16384": (lambda: webp_claiming(16_384, 16_384), {"too_many_pixels", "undecodable"}),
    "a TIFF claiming 2^32 pixels a side": (lambda: tiff_claiming(2**32 - 1, 2**32 - 1), {"too_many_pixels"}),
    "a TIFF claiming what it may, and empty": (lambda: tiff_claiming(7_000, 7_000), {"undecodable"}),
    "a TIFF whose pages are a ring": (lambda: cyclic_tiff(50), {"undecodable"}),
    "a TIFF of 1,100 pages": (lambda: deep_tiff(1_100), {"too_many_pixels"}),
    "a PNG with 200 MB of text": (
        lambda: png(8, 8, chunk(b"zTXt", b"a\0\0" + ZEROES)),
        {"undecodable", "decoded"},
    ),
    "a PNG with 200 MB of international text": (
        lambda: png(8, 8, chunk(b"iTXt", b"a\0\1\0\0\0" + ZEROES)),
        {"undecodable", "decoded"},
    ),
    "a PNG with a profile of 200 MB": (
        lambda: png(8, 8, chunk(b"iCCP", b"a\0\0" + ZEROES)),
        {"undecodable", "decoded"},
    ),
    "an APNG claiming 2^31 frames": (
        lambda: png(8, 8, chunk(b"acTL", struct.pack("!II", 2**31 - 1, 0))),
        {"undecodable", "too_many_pixels", "decoded"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS.keys())
def test_a_bomb_ends_with_a_code(decoder: Decoder, bomb: tuple[object, set[str]]) -> None:
    make, expected = bomb
    assert callable(make)
    code, took_s = outcome(decoder, make())
    assert code in expected
    assert took_s < DECODE_S
    assert decoder.decode(encode(quarters(), "JPEG"), pixels=False).width == 96


def test_no_bomb_took_more_memory_than_allowed(decoder: Decoder) -> None:
    decoder.decode(encode(quarters(), "JPEG"), pixels=False)
    if sys.platform != "linux":
        pytest.skip("looks into /proc")
    assert peak_bytes(decoder) < CHILD_BYTES


@pytest.mark.parametrize(
    "data",
    [
        encode(quarters(), "JPEG") + b"PK\3\4" + bytes(100_000),
        encode(quarters(), "PNG") + b"<html><script>alert(1)</script>",
        encode(quarters(), "GIF") + b"*/=1;alert(1)",
        encode(quarters(), "JPEG").replace(b"\xff\xd8", b"\xff\xd8\xff\xfe\0\x12<?php system(1)?>", 1),
    ],
)
def test_a_file_that_is_two_things_at_once_is_judged_as_the_image(decoder: Decoder, data: bytes) -> None:
    assert outcome(decoder, data)[0] == "decoded"


SEEDS = {
    "JPEG": turned(6, "JPEG"),
    "progressive JPEG": encode(quarters(), "JPEG", progressive=True),
    "PNG": turned(6, "PNG"),
    "palette PNG": encode(quarters().convert("P"), "PNG", transparency=1),
    "APNG": animation(4, "PNG"),
    "WebP": turned(6, "WEBP"),
    "lossless WebP": encode(quarters().convert("RGBA"), "WEBP", lossless=True),
    "animated WebP": animation(4, "WEBP"),
    "GIF": animation(4, "GIF"),
    "BMP": encode(quarters(), "BMP"),
    "TIFF": turned(6, "TIFF"),
    "LZW TIFF": encode(quarters(), "TIFF", compression="tiff_lzw"),
    "JPEG in TIFF": encode(quarters(), "TIFF", compression="jpeg"),
    "AVIF": turned(6, "AVIF"),
}


def damaged(data: bytes, chance: random.Random) -> bytes:
    """The file with some of it overwritten, cut out, doubled or cut off."""
    spoilt = bytearray(data)
    for _ in range(chance.randint(1, 8)):
        at, length = chance.randrange(len(spoilt)), chance.randint(1, 16)
        match chance.randrange(5):
            case 0:
                spoilt[at : at + length] = chance.randbytes(length)
            case 1:
                spoilt[at : at + length] = chance.choice((b"\0", b"\xff", b"\x7f")) * length
            case 2:
                del spoilt[at : at + length]
            case 3:
                spoilt[at:at] = spoilt[at : at + length]
            case _:
                spoilt[at] ^= 1 << chance.randrange(8)
    return bytes(spoilt[: chance.randint(len(spoilt) // 2, len(spoilt))] if chance.random() < 0.1 else spoilt)


@pytest.mark.parametrize("seed", SEEDS.values(), ids=SEEDS.keys())
def test_damaged_files_end_decoded_or_with_a_code(decoder: Decoder, seed: bytes) -> None:
    chance = random.Random(zlib.crc32(seed))
    ends = [outcome(decoder, damaged(seed, chance)) for _ in range(100)]
    assert max(took_s for _, took_s in ends) < DECODE_S
    assert outcome(decoder, seed)[0] == "decoded"
    assert "undecodable" in {code for code, _ in ends}, "the damage is real"

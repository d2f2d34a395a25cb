"""Bodies that come packed: unpacked as browsers do, and never to more than may be."""

import gzip
import zlib

import brotli
import pytest

from intake.codings import Body
from moderation.errors import HostRefused, TooLarge

PICTURE = bytes(range(256)) * 40
RAW = zlib.compressobj(wbits=-15)
PACKED = {
    b"": PICTURE,
    b"identity": PICTURE,
    b"aws-chunked": PICTURE,  # a mistake that leaves the body as it is
    b"gzip": gzip.compress(PICTURE),
    b"x-gzip": gzip.compress(PICTURE[:100]) + gzip.compress(PICTURE[100:]),  # two members
    b"deflate": zlib.compress(PICTURE),
    b"Deflate": RAW.compress(PICTURE) + RAW.flush(),
    b"br": brotli.compress(PICTURE),
    b"gzip, br": brotli.compress(gzip.compress(PICTURE)),
}


def unpacked(coding: bytes, data: bytes, *, max_bytes: int = 100_000, step: int = 97) -> bytes:
    body = Body(coding, host="images.test", max_bytes=max_bytes)
    parts = [body.take(data[at : at + step]) for at in range(0, len(data), step)]
    body.finish()
    return b"".join(parts)


@pytest.mark.parametrize("coding", PACKED)
@pytest.mark.parametrize("step", [1, 97, 100_000])
def test_a_packed_body_is_unpacked(coding: bytes, step: int) -> None:
    assert unpacked(coding, PACKED[coding], step=step) == PICTURE


@pytest.mark.parametrize("coding", [b"gzip", b"deflate", b"br"])
def test_what_unpacks_to_too_much_is_refused_before_it_is_held(coding: bytes) -> None:
    bomb = {b"gzip": gzip.compress, b"deflate": zlib.compress, b"br": brotli.compress}[coding](
        bytes(50_000_000)
    )
    with pytest.raises(TooLarge):
        unpacked(coding, bomb, step=100_000)


@pytest.mark.parametrize("coding", [b"gzip", b"deflate", b"br"])
@pytest.mark.parametrize("damage", ["cut", "other"])
def test_what_is_not_packed_as_it_says_is_refused(coding: bytes, damage: str) -> None:
    data = PACKED[coding][:-9] if damage == "cut" else b"\xff\xd8\xff\xe0 a JPEG"
    with pytest.raises(HostRefused):
        unpacked(coding, data)


@pytest.mark.parametrize("coding", [b"zstd", b"compress", b"gzip, gzip, gzip"])
def test_what_is_packed_in_another_way_is_refused(coding: bytes) -> None:
    with pytest.raises(HostRefused):
        unpacked(coding, PICTURE)

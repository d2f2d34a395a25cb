"""What bytes are is read from the bytes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from intake.formats import DECODERS, sniff
from moderation.errors import UnsupportedType


def ftyp(major: bytes, *compatible: bytes) -> bytes:
    brands = major + b"\0\0\0\0" + b"".join(compatible)
    return (8 + len(brands)).to_bytes(4, "big") + b"ftyp" + brands


@pytest.mark.parametrize(
    ("data", "media_type"),
    [
        (b"\xff\xd8\xff\xe0", "image/jpeg"),
        (b"\x89PNG\r\n\x1a\n", "image/png"),
        (b"GIF87a", "image/gif"),
        (b"GIF89a", "image/gif"),
        (b"RIFF\1\2\3\4WEBPVP8 ", "image/webp"),
        (b"BM" + bytes(12) + (40).to_bytes(4, "little"), "image/bmp"),
        (b"II*\0", "image/tiff"),
        (b"MM\0*", "image/tiff"),
        (b"II+\0", "image/tiff"),
        (b"MM\0+", "image/tiff"),
        (ftyp(b"avif", b"mif1"), "image/avif"),
        (ftyp(b"avis"), "image/avif"),
        (ftyp(b"mif1", b"avif"), "image/avif"),
        (ftyp(b"mif1", b"heic"), "image/heif"),
        (ftyp(b"heic", b"mif1"), "image/heif"),
    ],
)
def test_each_judged_format_is_known_by_its_first_bytes(data: bytes, media_type: str) -> None:
    assert sniff(data) == media_type
    assert media_type in DECODERS


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (b"", "no bytes"),
        (b"<?xml version='1.0'?>\n<svg onload='x'>", "image/svg"),
        (b"\xef\xbb\xbf  <!DOCTYPE html>", "text/html"),
        (b"<p>", "text"),
        (b'{"error": 1}', "text"),
        (b"%PDF-1.7", "application/pdf"),
        (b"8BPS\0\1", "photoshop"),
        (b"%!PS-Adobe EPSF", "postscript"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "image/jxl"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "image/jp2"),
        (b"PK\3\4", "zip"),
        (b"\x1f\x8b\x08", "gzip"),
        (ftyp(b"isom", b"mp42"), "video/mp4"),
        (b"II*\0\x10\0\0\0CR\2\0", "unknown"),
        (b"BM this is a text about BMs", "unknown"),
        (b"RIFF\1\2\3\4WAVE", "unknown"),
    ],
)
def test_what_is_not_judged_is_refused_and_named(data: bytes, named: str) -> None:
    with pytest.raises(UnsupportedType, match=named):
        sniff(data)


@given(st.binary(max_size=64))
def test_any_bytes_are_a_judged_type_or_refused(data: bytes) -> None:
    try:
        kind = sniff(data)
    except UnsupportedType:
        return
    assert kind in DECODERS

"""What bytes are, by the bytes themselves. What a host or a file name says of them is never trusted."""

from moderation.errors import UnsupportedType

# Pillow's name for each type that is judged.
DECODERS = {
    "image/jpeg": "JPEG",
    "image/png": "PNG",
    "image/webp": "WEBP",
    "image/gif": "GIF",
    "image/bmp": "BMP",
    "image/tiff": "TIFF",
    "image/avif": "AVIF",
    "image/heif": "HEIF",  # where pillow-heif is installed
}

_PREFIXES = (
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"II*\0", "image/tiff"),
    (b"MM\0*", "image/tiff"),
    (b"II+\0", "image/tiff"),  # BigTIFF
    (b"MM\0+", "image/tiff"),
)

_AVIF_BRANDS = frozenset({b"avif", b"avis"})
_HEIF_BRANDS = frozenset(
    {b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"hevm", b"hevs", b"mif1", b"msf1"}
)
_BMP_HEADER_SIZES = frozenset({12, 16, 40, 52, 56, 64, 108, 124})

# Not judged, but named, so that a refusal says what the file is.
_NAMED = (
    (b"%PDF-", "application/pdf"),
    (b"8BPS", "image/vnd.adobe.photoshop"),
    (b"%!PS", "application/postscript"),
    (b"\xc5\xd0\xd3\xc6", "application/postscript"),
    (b"\xff\x0a", "image/jxl"),
    (b"\0\0\0\x0cJXL ", "image/jxl"),
    (b"\0\0\0\x0cjP  ", "image/jp2"),
    (b"\xff\x4f\xff\x51", "image/jp2"),
    (b"\0\0\1\0", "image/x-icon"),
    (b"PK\3\4", "application/zip"),
    (b"\x1f\x8b", "application/gzip"),
    (b"\x1aE\xdf\xa3", "video/webm"),
)


def sniff(data: bytes) -> str:
    """The media type of an image that is judged. Raises UnsupportedType, which names what it is instead."""
    media_type = _judged(data)
    if media_type is None:
        raise UnsupportedType(f"not an image format that is judged: {_name(data)}")
    return media_type


def _judged(data: bytes) -> str | None:
    if data[:4] in (b"II*\0", b"MM\0*") and data[8:10] == b"CR":
        return None  # Canon's raw format: its first page is a preview
    for prefix, media_type in _PREFIXES:
        if data.startswith(prefix):
            return media_type
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    if data[:2] == b"BM" and int.from_bytes(data[14:18], "little") in _BMP_HEADER_SIZES:
        return "image/bmp"
    if data[4:8] == b"ftyp":
        return _iso_base_media(data)
    return None


def _iso_base_media(data: bytes) -> str | None:
    """AVIF and HEIF share a container: the major brand decides, or a compatible one where that is generic."""
    size = min(int.from_bytes(data[:4], "big"), 256)
    brands = [data[8:12], *(data[at : at + 4] for at in range(16, size, 4))]
    if brands[0] in _AVIF_BRANDS or (brands[0] in _HEIF_BRANDS and _AVIF_BRANDS.intersection(brands)):
        return "image/avif"
    if brands[0] in _HEIF_BRANDS:
        return "image/heif"
    return None


def _name(data: bytes) -> str:
    if not data:
        return "no bytes at all"
    for prefix, name in _NAMED:
        if data.startswith(prefix):
            return name
    if data[4:8] == b"ftyp":
        return "video/mp4 or a relative of it"
    text = data[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if b"<svg" in text:
        return "image/svg+xml"
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        return "text/html"
    if text.startswith((b"<", b"{", b"[")):
        return "text"
    return "unknown"

"""What the decoder hands to a judge: one picture, in one or more still views."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fetched:
    """The bytes behind a URI, and what their host said of them."""

    data: bytes
    etag: str | None = None
    version: str | None = None
    declared_type: str | None = None


@dataclass(frozen=True, slots=True)
class View:
    """One still picture, RGB, oriented as a person sees it.

    data: an encoded JPEG, PNG or WebP: the original bytes where they are already plain, else a lossless PNG.
    rgb: height * width * 3 bytes, row by row, where the judge asked for pixels; else None.
    pixels_sha256: of those rgb bytes.
    pdq: a perceptual hash, 64 hexadecimal digits, and its quality from 0 to 100, where DecodeSettings asks for it.
    """

    name: str  # "whole", "frame 0", "on white", "on black"
    data: bytes
    media_type: str
    width: int
    height: int
    pixels_sha256: str
    rgb: bytes | None = None
    pdq: str | None = None
    pdq_quality: int | None = None


@dataclass(frozen=True, slots=True)
class Picture:
    """A decoded image. `views` holds at least one; the worst verdict of them is the image's."""

    bytes_sha256: str
    byte_count: int
    media_type: str
    width: int
    height: int
    frames: int
    views: tuple[View, ...]

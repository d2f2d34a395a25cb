"""Bodies that a host sends packed though asked for none: unpacked as browsers do, within the same bound of bytes."""

import zlib
from collections.abc import Sequence
from typing import Protocol

import brotli

from moderation.errors import HostRefused, TooLarge

_GZIP = frozenset({b"gzip", b"x-gzip"})
UNPACKED = _GZIP | {b"deflate", b"br"}
_REFUSED = frozenset({b"compress", b"x-compress", b"zstd", b"dcb", b"dcz"})
_MOST = 2  # codings on top of one another: more than any host needs

_PIECE_BYTES = 1_000_000
_GZIP_WINDOW = 16 + zlib.MAX_WBITS


class Unpacker(Protocol):
    """Raises ValueError where a piece is not of this coding."""

    def take(self, piece: bytes, most: int) -> bytes:
        """What a piece unpacks to. Raises Overflow above `most` bytes."""

    def finish(self) -> None:
        """Raises ValueError where the body was cut off."""


class Overflow(Exception):
    """More bytes than asked for."""


class Body:
    """Takes a body piece by piece and unpacks it. Raises TooLarge, HostRefused."""

    def __init__(self, coding: bytes, *, host: str, max_bytes: int) -> None:
        """coding: the header, with the coding that was put on last at its end."""
        names = [name.strip().lower() for name in coding.split(b",")]
        packed = [name for name in names if name in UNPACKED]
        if _REFUSED.intersection(names) or len(packed) > _MOST:
            raise HostRefused(f"{host} answered with a body packed in a way that is not read here")
        self._unpackers: Sequence[Unpacker] = [_unpacker(name) for name in reversed(packed)]
        self._host = host
        self._max_bytes = max_bytes
        self._size = 0

    def take(self, piece: bytes) -> bytes:
        try:
            for unpacker in self._unpackers:
                piece = unpacker.take(piece, self._max_bytes - self._size)
        except Overflow:
            raise TooLarge(f"unpacks to more than {self._max_bytes} bytes") from None
        except ValueError:
            raise self._damaged() from None
        self._size += len(piece)
        return piece

    def finish(self) -> None:
        try:
            for unpacker in self._unpackers:
                unpacker.finish()
        except ValueError:
            raise self._damaged() from None

    def _damaged(self) -> HostRefused:
        return HostRefused(f"{self._host} answered with a body that is not packed as it says")


def _unpacker(name: bytes) -> Unpacker:
    return _Brotli() if name == b"br" else _Zlib(gzip=name in _GZIP)


class _Zlib:
    """gzip, of several members too, and deflate, with zlib's frame or without, as browsers take both."""

    def __init__(self, *, gzip: bool) -> None:
        self._gzip = gzip
        self._engine = zlib.decompressobj(_GZIP_WINDOW) if gzip else None

    def take(self, piece: bytes, most: int) -> bytes:
        if self._engine is None:
            if not piece:
                return b""
            self._engine = zlib.decompressobj(zlib.MAX_WBITS if piece[0] & 15 == 8 else -zlib.MAX_WBITS)
        unpacked = b""
        try:
            while piece:
                if self._engine.eof:
                    if not self._gzip or piece[:1] != b"\x1f":
                        break  # padding
                    self._engine = zlib.decompressobj(_GZIP_WINDOW)
                unpacked += self._engine.decompress(piece, most + 1 - len(unpacked))
                if len(unpacked) > most:
                    raise Overflow
                piece = self._engine.unconsumed_tail or self._engine.unused_data
        except zlib.error as error:
            raise ValueError(str(error)) from error
        return unpacked

    def finish(self) -> None:
        if self._engine is not None and not self._engine.eof:
            raise ValueError("cut off")


class _Brotli:
    def __init__(self) -> None:
        self._engine = brotli.Decompressor()

    def take(self, piece: bytes, most: int) -> bytes:
        unpacked = b""
        try:
            if piece:
                unpacked = self._engine.process(piece, output_buffer_limit=_PIECE_BYTES)
            while not self._engine.can_accept_more_data() and len(unpacked) <= most:
                unpacked += self._engine.process(b"", output_buffer_limit=_PIECE_BYTES)
        except brotli.error as error:
            raise ValueError(str(error)) from error
        if len(unpacked) > most:
            raise Overflow
        return unpacked

    def finish(self) -> None:
        if not self._engine.is_finished():
            raise ValueError("cut off")

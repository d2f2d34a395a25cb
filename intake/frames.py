"""What a decoder child and its parent say to each other: a JSON header, then the blobs that it announces.

Both sides import this, so it must stay light; the parent takes every answer for a stranger's, and checks it.
"""

import json
import socket
import struct
import time
from collections.abc import Sequence
from typing import Any

Header = dict[str, Any]

_LENGTHS = struct.Struct("!IB")  # bytes of the header, number of blobs
_BLOB = struct.Struct("!Q")
_MAX_HEADER_BYTES = 1_000_000
_MAX_BLOBS = 64


class FrameError(Exception):
    """The other side ended, or sent what is no frame."""


class FrameChannel:
    """Frames over a stream socket. Every wait ends at a deadline, where one is given."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end

    def send(self, header: Header, blobs: Sequence[bytes] = (), *, deadline: float | None = None) -> None:
        """deadline: on the monotonic clock. Raises TimeoutError, FrameError."""
        head = json.dumps(header).encode()
        sizes = b"".join(_BLOB.pack(len(blob)) for blob in blobs)
        try:
            for part in (_LENGTHS.pack(len(head), len(blobs)) + head + sizes, *blobs):
                self._wait_until(deadline)
                self._end.sendall(part)
        except TimeoutError:
            raise
        except OSError as error:
            raise FrameError(str(error)) from error

    def receive(
        self, *, deadline: float | None = None, max_blob_bytes: int | None = None
    ) -> tuple[Header, list[bytes]]:
        """max_blob_bytes: of all blobs together. Raises TimeoutError, FrameError."""
        head_bytes, count = _LENGTHS.unpack(self._exactly(_LENGTHS.size, deadline))
        if head_bytes > _MAX_HEADER_BYTES or count > _MAX_BLOBS:
            raise FrameError("the header is too large")
        try:
            header = json.loads(self._exactly(head_bytes, deadline))
        except ValueError as error:
            raise FrameError("the header is not JSON") from error
        sizes = [_BLOB.unpack(self._exactly(_BLOB.size, deadline))[0] for _ in range(count)]
        if not isinstance(header, dict) or (max_blob_bytes is not None and sum(sizes) > max_blob_bytes):
            raise FrameError("the blobs are too large")
        return header, [self._exactly(size, deadline) for size in sizes]

    def close(self) -> None:
        self._end.close()

    def _wait_until(self, deadline: float | None) -> None:
        """Without a deadline the socket is left as it is: a child in its sandbox may not change it."""
        if deadline is not None:
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise TimeoutError
            self._end.settimeout(left_s)

    def _exactly(self, size: int, deadline: float | None) -> bytes:
        data = bytearray(size)
        view, at = memoryview(data), 0
        while at < size:
            self._wait_until(deadline)
            try:
                count = self._end.recv_into(view[at:])
            except TimeoutError:
                raise
            except OSError as error:
                raise FrameError(str(error)) from error
            if count == 0:
                raise FrameError("the other side ended")
            at += count
        view.release()
        return bytes(data)

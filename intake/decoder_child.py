"""A decoder process: reads one image after another from the socket that is its stdin, and answers on it.

It alone touches a stranger's pixels. It starts without its parent's environment, knows no secret, and what
happens to it costs one image. It ends when its parent does, because the socket then ends.
"""

import hashlib
import io
import socket
from collections.abc import Callable
from typing import Any

from PIL import Image, UnidentifiedImageError

from intake.frames import FrameChannel, FrameError, Header
from intake.sandbox import enter, limit_cpu, limit_resources
from intake.stills import DecodeLimits, NoDecoderError, PixelLimitError, Still, open_image, prepare, stills

Answer = tuple[Header, list[bytes]]
Hash = Callable[[Image.Image], tuple[str, int]]

_ROWS_BYTES = 4_000_000  # hashed at a time, to spare a copy of the whole picture


def main(options: dict[str, Any]) -> None:
    """options: see `decoder_process._options`."""
    channel = FrameChannel(socket.socket(fileno=0))
    limits = DecodeLimits(**options["limits"])
    limit_resources(options["memory_bytes"])
    prepare(limits.max_pixels)
    child = DecoderLoop(limits, _perceptual_hash() if options["perceptual_hash"] else None)
    channel.send({"sandboxed": enter()})
    while True:
        try:
            question, (data,) = channel.receive()
        except FrameError:
            return
        limit_cpu(options["cpu_s"])
        answer, blobs = child.answer(data, question["media_type"], pixels=question["pixels"])
        del data
        channel.send(answer, blobs)


def _perceptual_hash() -> Hash:
    from intake.perceptual import pdq  # NumPy takes as long to import as all the rest

    return pdq


class DecoderLoop:
    """Answers one question after another. Nothing of an image is kept for the next."""

    def __init__(self, limits: DecodeLimits, perceptual_hash: Hash | None) -> None:
        self._limits = limits
        self._perceptual_hash = perceptual_hash

    def answer(self, data: bytes, media_type: str, *, pixels: bool) -> Answer:
        try:
            return self._decode(data, media_type, pixels=pixels)
        except PixelLimitError as error:
            return _refusal("too_many_pixels", str(error))
        except (Image.DecompressionBombError, Image.DecompressionBombWarning):
            return _refusal("too_many_pixels", "a frame holds too many pixels")
        except NoDecoderError as error:
            return _refusal("unsupported_type", str(error))
        except UnidentifiedImageError:
            return _refusal("undecodable", "its header cannot be read")
        except MemoryError:
            return _refusal("undecodable", "decoding needs more memory than allowed")
        except Exception as error:  # noqa: BLE001 - Pillow raises a dozen kinds on damaged files
            return _refusal("undecodable", f"{type(error).__name__}: {error}")

    def _decode(self, data: bytes, media_type: str, *, pixels: bool) -> Answer:
        image, frames = open_image(data, media_type, self._limits)
        views: dict[str, Header] = {}  # by digest: frames that look the same are judged once
        blobs: list[bytes] = []
        with image:
            for still in stills(image, data, frames=frames, frames_judged=self._limits.frames_judged):
                digest = _digest(still.image)
                if digest not in views:
                    views[digest] = self._view(still, digest)
                    blobs += _blobs(still, pixels=pixels)
        return {"ok": True, "frames": frames, "views": list(views.values())}, blobs

    def _view(self, still: Still, digest: str) -> Header:
        view = {
            "name": still.name,
            "plain": still.plain,
            "width": still.image.width,
            "height": still.image.height,
            "sha256": digest,
        }
        if self._perceptual_hash is not None:
            view["pdq"], view["pdq_quality"] = self._perceptual_hash(still.image)
        return view


def _refusal(code: str, message: str) -> Answer:
    return {"ok": False, "code": code, "message": message}, []


def _blobs(still: Still, *, pixels: bool) -> list[bytes]:
    """The PNG, where the original bytes do not serve, then the RGB rows, where asked for."""
    blobs = []
    if not still.plain:
        file = io.BytesIO()
        # Pixels and nothing else: Pillow would copy a profile and a colour key from the original.
        still.image.save(file, "PNG", compress_level=1, icc_profile=None, transparency=None)
        blobs.append(file.getvalue())
    if pixels:
        blobs.append(still.image.tobytes())
    return blobs


def _digest(image: Image.Image) -> str:
    """SHA-256 of the RGB rows."""
    digest = hashlib.sha256()
    rows = max(1, _ROWS_BYTES // (3 * image.width))
    for top in range(0, image.height, rows):
        digest.update(image.crop((0, top, image.width, min(top + rows, image.height))).tobytes())
    return digest.hexdigest()

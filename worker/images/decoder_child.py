"""A decoder process: reads one image after another from the socket that is its stdin, and answers on it.

It alone touches a stranger's pixels. It starts without its parent's environment, knows no secret, and what
happens to it costs one image. It ends when its parent does, because the socket then ends.
"""

import hashlib
import io
import socket
from typing import Any

from PIL import Image

from worker.images.sandbox import enter, limit_cpu, limit_resources
from worker.images.stills import Limits, NoDecoderError, PixelLimitError, Still, open_image, prepare, stills
from worker.images.wire import Channel, FrameError

_ROWS_BYTES = 4_000_000  # hashed at a time, to spare a copy of the whole picture


def main(options: dict[str, Any]) -> None:
    """options: the fields of Limits, and memory_bytes and cpu_s."""
    channel = Channel(socket.socket(fileno=0))
    limits = Limits(**options["limits"])
    limit_resources(options["memory_bytes"])
    prepare(limits.max_pixels)
    channel.send({"sandboxed": enter()})
    while True:
        try:
            question, (data,) = channel.receive()
        except FrameError:
            return
        limit_cpu(options["cpu_s"])
        answer, blobs = _answer(question, data, limits)
        del data
        channel.send(answer, blobs)


def _answer(question: dict[str, Any], data: bytes, limits: Limits) -> tuple[dict[str, Any], list[bytes]]:
    try:
        return _decode(data, question["media_type"], pixels=question["pixels"], limits=limits)
    except PixelLimitError as error:
        return _refusal("too_many_pixels", str(error)), []
    except NoDecoderError as error:
        return _refusal("unsupported_type", str(error)), []
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        return _refusal("too_many_pixels", "a frame holds too many pixels"), []
    except MemoryError:
        return _refusal("undecodable", "decoding needs more memory than allowed"), []
    except Exception as error:  # noqa: BLE001 - Pillow raises a dozen kinds on damaged files
        return _refusal("undecodable", f"{type(error).__name__}: {error}"), []


def _refusal(code: str, message: str) -> dict[str, Any]:
    return {"ok": False, "code": code, "message": message}


def _decode(
    data: bytes, media_type: str, *, pixels: bool, limits: Limits
) -> tuple[dict[str, Any], list[bytes]]:
    image, frames = open_image(data, media_type, limits)
    views: dict[str, dict[str, Any]] = {}  # by digest: frames that look the same are judged once
    blobs: list[bytes] = []
    with image:
        for still in stills(image, data, frames=frames, frames_judged=limits.frames_judged):
            digest = _digest(still.image)
            if digest not in views:
                views[digest] = _view(still, digest)
                blobs += _blobs(still, pixels=pixels)
    return {"ok": True, "frames": frames, "views": list(views.values())}, blobs


def _view(still: Still, digest: str) -> dict[str, Any]:
    return {
        "name": still.name,
        "plain": still.plain,
        "width": still.image.width,
        "height": still.image.height,
        "sha256": digest,
    }


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

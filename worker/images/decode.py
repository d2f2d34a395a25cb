"""A stranger's bytes to clean pixels, in child processes that may die of them. Nothing is decoded here."""

import hashlib
import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from moderation.errors import DecoderUnavailable, TooManyPixels, Undecodable, UnsupportedType
from worker.images.decoder_process import DecoderDeathError, DecoderOverrunError, DecoderProcess
from worker.images.formats import sniff
from worker.images.picture import Picture, View
from worker.images.settings import DecodeSettings
from worker.images.wire import Header

_REFUSALS: dict[str, type[UnsupportedType | Undecodable | TooManyPixels]] = {
    error.code: error for error in (UnsupportedType, Undecodable, TooManyPixels)
}


class _View(BaseModel):
    """One view as a child describes it."""

    model_config = ConfigDict(frozen=True)

    name: Annotated[str, StringConstraints(pattern=r"^[a-z0-9 ]{1,60}$")]
    plain: bool
    width: int = Field(gt=0)
    height: int = Field(gt=0)
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class _Decoded(BaseModel):
    """A child's answer, checked, since a child that was taken over may answer anything."""

    model_config = ConfigDict(frozen=True)

    frames: int = Field(gt=0)
    views: Annotated[tuple[_View, ...], Field(min_length=1, max_length=256)]


class Decoder:
    """A pool of reused children. Shared by all threads of a worker; children start when first needed."""

    def __init__(self, settings: DecodeSettings | None = None) -> None:
        self._settings = settings or DecodeSettings()
        # A seat holds a child or stands empty; the last one used is used next, so few children are started.
        self._seats: queue.LifoQueue[DecoderProcess | None] = queue.LifoQueue()
        for _ in range(self._settings.children):
            self._seats.put(None)
        self._busy: set[DecoderProcess] = set()
        self._lock = threading.Lock()
        self._closed = False

    def decode(self, data: bytes, *, pixels: bool) -> Picture:
        """One image in its views. pixels: whether views carry their RGB bytes.

        Raises UnsupportedType, Undecodable, TooManyPixels; DecoderUnavailable where no child can be had.
        """
        media_type = sniff(data)
        question: Header = {"media_type": media_type, "pixels": pixels}
        try:
            answer, blobs = self._ask(question, data)
        except DecoderOverrunError as error:
            raise Undecodable(str(error)) from None
        except DecoderDeathError:
            answer, blobs = self._ask_again(question, data)
        if answer.get("ok") is not True:
            refusal = _REFUSALS.get(str(answer.get("code")), Undecodable)
            raise refusal(_one_line(str(answer.get("message", ""))))
        return _picture(answer, blobs, data=data, media_type=media_type, pixels=pixels)

    def close(self) -> None:
        """End all children; a decode in hand ends with DecoderUnavailable."""
        with self._lock:
            self._closed = True
            busy = list(self._busy)
        for child in busy:
            child.stop()
        with suppress(queue.Empty):
            while True:
                seat = self._seats.get_nowait()
                if seat is not None:
                    seat.kill()

    def _ask_again(self, question: Header, data: bytes) -> tuple[Header, list[bytes]]:
        """A child may have been killed for others' sake, such as a lack of memory: ask a fresh one."""
        try:
            return self._ask(question, data)
        except (DecoderDeathError, DecoderOverrunError) as error:
            raise Undecodable(str(error)) from None

    def _ask(self, question: Header, data: bytes) -> tuple[Header, list[bytes]]:
        with self._child() as child:
            return child.ask(question, data)

    @contextmanager
    def _child(self) -> Iterator[DecoderProcess]:
        """A child for one image. One that failed, or has served its time, leaves an empty seat behind."""
        try:
            seat = self._seats.get(timeout=self._settings.wait_s)
        except queue.Empty:
            raise DecoderUnavailable(f"no decoder came free within {self._settings.wait_s:g} s") from None
        child = None
        try:
            child = self._occupy(seat)
            yield child
            seat = child if child.decodes < self._settings.decodes_per_child else None
        except BaseException:
            seat = None
            raise
        finally:
            self._vacate(child, seat)

    def _occupy(self, seat: DecoderProcess | None) -> DecoderProcess:
        if self._closed:
            raise DecoderUnavailable("the decoder is closed")
        child = seat or DecoderProcess(self._settings)
        with self._lock:
            self._busy.add(child)
        return child

    def _vacate(self, child: DecoderProcess | None, seat: DecoderProcess | None) -> None:
        with self._lock:
            if child is not None:
                self._busy.discard(child)
            if self._closed:
                seat = None
        if child is not None and seat is None:
            child.kill()
        self._seats.put(seat)


def _picture(answer: Header, blobs: list[bytes], *, data: bytes, media_type: str, pixels: bool) -> Picture:
    try:
        decoded = _Decoded.model_validate(answer)
        parts = iter(blobs)
        views = tuple(_view(view, parts, data, media_type, pixels) for view in decoded.views)
    except (ValidationError, StopIteration, RuntimeError, ValueError) as error:
        raise Undecodable("the decoder's answer does not add up") from error
    return Picture(
        bytes_sha256=hashlib.sha256(data).hexdigest(),
        byte_count=len(data),
        media_type=media_type,
        width=views[0].width,
        height=views[0].height,
        frames=decoded.frames,
        views=views,
    )


def _view(view: _View, blobs: Iterator[bytes], data: bytes, media_type: str, pixels: bool) -> View:
    shown = data if view.plain else next(blobs)
    rgb = next(blobs) if pixels else None
    if rgb is not None and len(rgb) != 3 * view.width * view.height:
        raise ValueError("too few or too many pixels")
    return View(
        name=view.name,
        data=shown,
        media_type=media_type if view.plain else "image/png",
        width=view.width,
        height=view.height,
        pixels_sha256=view.sha256,
        rgb=rgb,
    )


def _one_line(text: str) -> str:
    """A child's message holds what a stranger wrote into a file: short, printable, one line."""
    return "".join(letter for letter in text if letter.isascii() and letter.isprintable())[:200]

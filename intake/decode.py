"""A stranger's bytes to clean pixels, in child processes that may die of them. Nothing is decoded here."""

import hashlib
import importlib.util
import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from intake.decoder_process import DecoderDeathError, DecoderOverrunError, DecoderProcess
from intake.formats import sniff
from intake.frames import Header
from intake.picture import Picture, View
from intake.settings import DecodeSettings
from moderation.errors import (
    BadSetting,
    DecoderUnavailable,
    DecodeTimeout,
    TooManyPixels,
    Undecodable,
    UnsupportedType,
)

_REFUSALS: dict[str, type[UnsupportedType | Undecodable | TooManyPixels]] = {
    error.code: error for error in (UnsupportedType, Undecodable, TooManyPixels)
}


Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class _ViewHeader(BaseModel):
    """One view as a child describes it."""

    model_config = ConfigDict(frozen=True)

    name: Annotated[str, StringConstraints(pattern=r"^[a-z0-9 ]{1,60}$")]
    plain: bool
    width: int = Field(gt=0)
    height: int = Field(gt=0)
    sha256: Digest
    pdq: Digest | None = None
    pdq_quality: Annotated[int, Field(ge=0, le=100)] | None = None


class _Decoded(BaseModel):
    """A child's answer, checked, since a child that was taken over may answer anything."""

    model_config = ConfigDict(frozen=True)

    frames: int = Field(gt=0)
    views: Annotated[tuple[_ViewHeader, ...], Field(min_length=1, max_length=256)]


class Decoder:
    """A pool of reused children. Shared by all threads of a worker; children start when first needed."""

    def __init__(self, settings: DecodeSettings | None = None) -> None:
        """Raises BadSetting where a setting needs a package that is not installed."""
        self._settings = settings or DecodeSettings()
        if self._settings.perceptual_hash and importlib.util.find_spec("pdqhash") is None:
            raise BadSetting(
                "VETLINE_DECODE_PERCEPTUAL_HASH needs the extra `hash` (pip install vetline[hash])"
            )
        # A seat holds a child or stands empty; the last one used is used next, so few children are started.
        self._seats: queue.LifoQueue[DecoderProcess | None] = queue.LifoQueue()
        for _ in range(self._settings.children):
            self._seats.put(None)
        self._alive: set[DecoderProcess] = set()
        self._lock = threading.Lock()
        self._closed = False

    @property
    def pids(self) -> list[int]:
        """The living children."""
        with self._lock:
            return sorted(child.pid for child in self._alive)

    def decode(self, data: bytes, *, pixels: bool) -> Picture:
        """One image in its views. pixels: whether views carry their RGB bytes.

        Raises UnsupportedType, Undecodable, TooManyPixels; DecodeTimeout where the machine is too busy to tell;
        DecoderUnavailable where no child can be had.
        """
        media_type = sniff(data)
        question: Header = {"media_type": media_type, "pixels": pixels}
        try:
            answer, blobs = self._ask(question, data)
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
            for child in self._alive:
                child.stop()
        for seat in self._take_idle_seats():
            if seat is not None:
                seat.kill()
            self._seats.put(None)  # whoever decodes now is told so, and does not wait

    def _take_idle_seats(self) -> list[DecoderProcess | None]:
        seats = []
        with suppress(queue.Empty):
            while True:
                seats.append(self._seats.get_nowait())
        return seats

    def _ask_again(self, question: Header, data: bytes) -> tuple[Header, list[bytes]]:
        """A child may have been killed for others' sake, such as a lack of memory: ask a fresh one."""
        try:
            return self._ask(question, data)
        except DecoderDeathError as error:
            raise Undecodable(str(error)) from None

    def _ask(self, question: Header, data: bytes) -> tuple[Header, list[bytes]]:
        try:
            with self._child() as child:
                return child.ask(question, data)
        except DecoderOverrunError as error:
            raise (DecodeTimeout if error.starved else Undecodable)(str(error)) from None

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
            self._alive.add(child)
        return child

    def _vacate(self, child: DecoderProcess | None, seat: DecoderProcess | None) -> None:
        with self._lock:
            seat = None if self._closed else seat
            if child is not None and seat is None:
                self._alive.discard(child)
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


def _view(view: _ViewHeader, blobs: Iterator[bytes], data: bytes, media_type: str, pixels: bool) -> View:
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
        pdq=view.pdq,
        pdq_quality=view.pdq_quality,
    )


def _one_line(text: str) -> str:
    """A child's message holds what a stranger wrote into a file: short, printable, one line."""
    return "".join(letter for letter in text if letter.isascii() and letter.isprintable())[:200]

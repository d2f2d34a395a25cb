"""Tiles cross from SGLang's HTTP process to its scheduler in shared memory. Both ends here are real processes."""

import multiprocessing
import os
import pickle
from hashlib import sha256
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest

from worker.runtime.plugin.transport import (
    UNCLAIMED_S,
    Pixels,
    SharedTiles,
    TileOutbox,
    shares_memory_with_children,
)

SHAPE = (3, 8, 8, 3)
DIGEST = sha256(b"an image").digest()
TABLE = np.arange(768, dtype=np.float16).reshape(3, 256)
PIXELS: Pixels = np.random.default_rng(1).integers(0, 256, SHAPE, dtype=np.uint8)

pytestmark = pytest.mark.skipif(
    not hasattr(os, "memfd_create"), reason="shared memory of this kind is Linux's"
)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def put(outbox: TileOutbox, digest: bytes = DIGEST) -> SharedTiles:
    return outbox.put(SHAPE, digest, TABLE, fill=lambda out: np.copyto(out, PIXELS))


def answer_what_arrives(pipe: Connection) -> None:
    """The scheduler's part, in a process of its own: unpickle, and say what is in there."""
    while message := pipe.recv_bytes():
        try:
            tiles = pickle.loads(message)
        except OSError as error:
            pipe.send((type(error).__name__, str(error)))
        else:
            pipe.send((tiles.digest, sha256(tiles.normalised().tobytes()).hexdigest()))


class Reader:
    def __init__(self) -> None:
        self._pipe, theirs = multiprocessing.Pipe()
        spawn = multiprocessing.get_context("spawn")
        self._process = spawn.Process(target=answer_what_arrives, args=(theirs,))
        self._process.start()

    def read(self, message: bytes) -> tuple[bytes | str, str]:
        self._pipe.send_bytes(message)
        assert self._pipe.poll(30), "no answer from the reader"
        answer: tuple[bytes | str, str] = self._pipe.recv()
        return answer

    def close(self) -> None:
        self._pipe.send_bytes(b"")
        self._process.join(30)
        self._pipe.close()


@pytest.fixture(scope="module")
def reader() -> "Reader":  # type: ignore[misc]  # a generator, as pytest wants it
    made = Reader()
    yield made
    made.close()


def test_another_process_reads_the_same_pixels_from_a_message_without_them(reader: Reader) -> None:
    tiles = put(TileOutbox())
    message = pickle.dumps(tiles)
    assert len(message) < 2500
    assert reader.read(message) == (DIGEST, sha256(tiles.normalised().tobytes()).hexdigest())


def test_memory_is_let_go_once_it_was_read(reader: Reader) -> None:
    outbox = TileOutbox()
    first = put(outbox)
    reader.read(pickle.dumps(first))
    put(outbox, sha256(b"another").digest())
    assert outbox.held() == 1


def test_memory_that_nobody_reads_is_let_go_in_the_end() -> None:
    clock = Clock()
    outbox = TileOutbox(clock=clock)
    put(outbox)
    clock.now = UNCLAIMED_S / 2
    put(outbox)
    assert outbox.held() == 2
    clock.now = UNCLAIMED_S + 1
    put(outbox)
    assert outbox.held() == 2


def test_a_descriptor_that_is_by_now_another_images_is_refused(reader: Reader) -> None:
    clock = Clock()
    outbox = TileOutbox(clock=clock)
    late = pickle.dumps(put(outbox))
    clock.now = UNCLAIMED_S + 1
    put(outbox, sha256(b"another").digest())
    put(outbox, sha256(b"a third").digest())  # takes a number that was let go
    kind, _ = reader.read(late)
    assert kind in ("OSError", "FileNotFoundError")


def test_without_shared_memory_the_pixels_travel_in_the_message(reader: Reader) -> None:
    outbox = TileOutbox(shared=False)
    tiles = put(outbox)
    assert outbox.held() == 0
    assert reader.read(pickle.dumps(tiles)) == (DIGEST, sha256(tiles.normalised().tobytes()).hexdigest())


def test_tiles_that_failed_to_be_made_leave_nothing_open() -> None:
    def fails(out: Pixels) -> None:
        raise ValueError("a broken image")

    outbox = TileOutbox()
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(ValueError, match="a broken image"):
        outbox.put(SHAPE, DIGEST, TABLE, fill=fails)
    assert (outbox.held(), len(list(Path("/proc/self/fd").iterdir()))) == (0, before)


def test_normalising_looks_every_value_up_in_its_channels_row() -> None:
    numbers = put(TileOutbox()).normalised()
    assert numbers.shape == (3, 3, 8, 8)
    for channel in range(3):
        assert np.array_equal(numbers[:, channel], TABLE[channel][PIXELS[..., channel]])


def test_the_probe_sees_that_children_can_map_our_memory() -> None:
    assert shares_memory_with_children()

"""What a decoder child says is checked: one that was taken over may say anything."""

import hashlib
import json
import socket
import struct
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from intake.decode import _one_line, _picture
from intake.frames import FrameChannel, FrameError
from moderation.errors import Undecodable

DATA = b"\xff\xd8\xff and so on"
VIEW = {"name": "whole", "plain": True, "width": 2, "height": 1, "sha256": "0" * 64}


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, FrameChannel]]:
    """A bare socket and, on its other side, a channel."""
    bare, other = socket.socketpair()
    with bare, other:
        yield bare, FrameChannel(other)


def soon() -> float:
    return time.monotonic() + 5


def test_an_honest_answer_becomes_a_picture() -> None:
    answer = {"ok": True, "frames": 1, "views": [VIEW]}
    picture = _picture(answer, [b"rgbrgb"], data=DATA, media_type="image/jpeg", pixels=True)
    assert picture.bytes_sha256 == hashlib.sha256(DATA).hexdigest()
    assert picture.views[0].data is DATA
    assert picture.views[0].rgb == b"rgbrgb"


@pytest.mark.parametrize(
    ("change", "blobs"),
    [
        ({"views": []}, [b"rgbrgb"]),
        ({"views": None}, [b"rgbrgb"]),
        ({"frames": 0}, [b"rgbrgb"]),
        ({"frames": "many"}, [b"rgbrgb"]),
        ({"views": [VIEW | {"width": -1}]}, [b"rgbrgb"]),
        ({"views": [VIEW | {"width": 3}]}, [b"rgbrgb"]),
        ({"views": [VIEW | {"sha256": "x"}]}, [b"rgbrgb"]),
        ({"views": [VIEW | {"name": "<script>"}]}, [b"rgbrgb"]),
        ({"views": [VIEW, VIEW]}, [b"rgbrgb"]),
        ({"views": [VIEW | {"plain": False}]}, [b"rgbrgb"]),
        ({"views": [VIEW] * 300}, [b"rgbrgb"] * 300),
        ({}, []),
        ({}, [b"rgb"]),
    ],
)
def test_an_answer_that_does_not_add_up_is_undecodable(change: dict[str, Any], blobs: list[bytes]) -> None:
    answer = {"ok": True, "frames": 1, "views": [VIEW]} | change
    with pytest.raises(Undecodable, match="add up"):
        _picture(answer, blobs, data=DATA, media_type="image/jpeg", pixels=True)


def test_a_message_is_cut_to_one_printable_line() -> None:
    assert _one_line("a\x1b[31m\nb\u202e" + "x" * 500) == ("a[31mb" + "x" * 500)[:200]


def test_frames_arrive_as_they_were_sent(ends: tuple[socket.socket, FrameChannel]) -> None:
    bare, channel = ends
    blobs = [b"", b"one", bytes(3_000_000)]
    sender = threading.Thread(
        target=FrameChannel(bare).send, args=({"a": 1}, blobs), kwargs={"deadline": soon()}
    )
    sender.start()
    assert channel.receive(deadline=soon()) == ({"a": 1}, blobs)
    sender.join()


@pytest.mark.parametrize(
    "said",
    [
        struct.pack("!IB", 2_000_000, 0),
        struct.pack("!IB", 2, 255) + b"{}",
        struct.pack("!IB", 2, 0) + b"no",
        struct.pack("!IB", 2, 0) + b"[]",
        struct.pack("!IBQ", 2, 1, 0)[:5] + b"{}" + struct.pack("!Q", 2**63),
        struct.pack("!IB", 5, 0) + b"{}",
        b"",
        json.dumps({"ok": True}).encode() * 10,
    ],
)
def test_what_is_no_frame_is_refused_without_being_held(
    ends: tuple[socket.socket, FrameChannel], said: bytes
) -> None:
    bare, channel = ends
    bare.sendall(said)
    bare.shutdown(socket.SHUT_WR)
    with pytest.raises(FrameError):
        channel.receive(deadline=soon(), max_blob_bytes=1_000)


def test_neither_side_waits_past_the_deadline(ends: tuple[socket.socket, FrameChannel]) -> None:
    bare, channel = ends
    bare.sendall(b"\0")
    started = time.monotonic()
    with pytest.raises(TimeoutError):
        channel.receive(deadline=started + 0.1)
    with pytest.raises(TimeoutError):
        channel.send({}, [bytes(50_000_000)], deadline=started + 0.2)
    assert time.monotonic() - started < 5

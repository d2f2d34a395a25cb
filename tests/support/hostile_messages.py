"""Messages that nobody should send: hand-made, and mutated from well-formed ones, in bytes."""

import base64
import gzip
import json
import random
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

from tests.support.plain_client import body, protocol_2

_ODD: list[Any] = [
    None, True, False, 0, -1, 5, 2**53, 2**70, 1e308, "", "x", "\x1b]0;title\x07\x1b[2J", "\u202egpj", "a\0b", "é" * 300,
    [], [1], [[]], {}, {"a": 1}, {"a": {"b": [None]}}, "A" * 5_000, "celery.backend_cleanup",
]  # fmt: skip
_HEADERS = (
    "id", "task", "lang", "eta", "expires", "group", "retries", "timelimit", "root_id", "parent_id", "argsrepr",
    "kwargsrepr", "origin", "ignore_result", "replaced_task_nesting", "stamped_headers", "stamps", "shadow", "vetline_more",
    "compression", "chord", "priority", "redelivered", "meth",
)  # fmt: skip
_PROPERTIES = (
    "correlation_id", "reply_to", "delivery_mode", "delivery_info", "priority", "body_encoding", "delivery_tag",
)  # fmt: skip
_PARTS = ("body", "headers", "properties", "content-type", "content-encoding")
_COMPRESSIONS = ("application/x-gzip", "gzip", "zlib", "bzip2", "application/x-bz2", "lzma", "zstd", "brotli")
_TYPES = (
    "application/x-python-serialize", "pickle", "application/x-yaml", "application/x-msgpack", "application/data",
    "text/plain",
)  # fmt: skip


def ring() -> dict[str, Any]:
    """A message that names a row, of which there is none."""
    return protocol_2(kwargs={"id": str(uuid4()), "uri": "s3://…", "policy": "p@1"})


def submission() -> dict[str, Any]:
    return protocol_2(kwargs={"uri": "https://images.invalid/a.jpg", "policy": "not-there"})


def hand_made() -> Iterator[bytes]:
    """Each form that has ended a worker, or could."""
    yield from (
        b"",
        b" ",
        b"null",
        b"[]",
        b"5",
        b'"x"',
        b"true",
        b"{}",
        b"{",
        b"\xff\xfe",
        b"\x00" * 100,
        b"NaN",
    )
    yield b"[" * 100_000 + b"]" * 100_000
    yield b'{"a":' * 50_000 + b"1" + b"}" * 50_000
    yield b"1" * 50_000
    yield b"x" * 300_000
    for make in (ring, submission):
        yield _bytes({**make(), "body": body([[], {}, {}]) * 20_000})
        bomb = base64.b64encode(gzip.compress(b" " * 20_000_000)).decode()
        for name in _COMPRESSIONS:
            message = make()
            message["headers"]["compression"] = name
            yield _bytes({**message, "body": bomb})
        for content_type in _TYPES:
            yield _bytes({**make(), "content-type": content_type})
        for place, names in (("headers", _HEADERS), ("properties", _PROPERTIES)):
            for name in names:
                for odd in _ODD:
                    message = make()
                    message[place][name] = odd
                    yield _bytes(message)
                message = make()
                message[place].pop(name, None)
                yield _bytes(message)
        for name in _PARTS:
            for odd in _ODD:
                yield _bytes({**make(), name: odd})
            yield _bytes({key: value for key, value in make().items() if key != name})
        for odd in _ODD:
            for call in (
                odd,
                [odd],
                [odd, {}, {}],
                [[], odd, {}],
                [[], {}, odd],
                [[odd], {"id": odd}, {"chain": odd}],
            ):
                yield _bytes({**make(), "body": body(call)})


def mutated(seed: int) -> Iterator[bytes]:
    """Without end: bytes of well-formed messages changed at a few places each."""
    chance = random.Random(seed)
    changes: list[Callable[[bytearray, random.Random], None]] = [_flip, _cut, _double, _insert, _swap]
    while True:
        raw = bytearray(_bytes(chance.choice((ring, submission))()))
        for _ in range(chance.randint(1, 4)):
            chance.choice(changes)(raw, chance)
        yield bytes(raw)


def _bytes(message: Any) -> bytes:
    return json.dumps(message).encode()


def _flip(raw: bytearray, chance: random.Random) -> None:
    if raw:
        raw[chance.randrange(len(raw))] = chance.randrange(256)


def _cut(raw: bytearray, chance: random.Random) -> None:
    start = chance.randrange(len(raw) + 1)
    del raw[start : start + chance.randint(1, 60)]


def _double(raw: bytearray, chance: random.Random) -> None:
    start = chance.randrange(len(raw) + 1)
    raw[start:start] = raw[start : start + chance.randint(1, 60)]


def _insert(raw: bytearray, chance: random.Random) -> None:
    start = chance.randrange(len(raw) + 1)
    raw[start:start] = chance.choice(
        (b"null", b"[]", b"{}", b'"', b"\\u0000", b"\x80", b"1e400", b",,", b"-")
    )


def _swap(raw: bytearray, chance: random.Random) -> None:
    """One value for another."""
    old, new = chance.sample(
        (b"null", b"2", b'"utf-8"', b'"base64"', b'"application/json"', b"0", b"[]", b"{}"), 2
    )
    raw[:] = bytes(raw).replace(old, new, 1)

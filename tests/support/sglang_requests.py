"""A /generate request as the scripted SGLang keeps it, and what is read out of it."""

import base64
import binascii
import time
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any


@dataclass(slots=True)
class Recorded:
    """One /generate request as it came, without the image's bytes, and what became of it."""

    nth: int
    ask: int
    rid: str
    text: str  # also where it came as token ids: what /tokenize was asked with
    image: str | None  # sha256 of the image's bytes
    image_bytes: int
    image_prefix: str  # the first characters of image_data, such as "data:image/jpeg;base64,"
    body: dict[str, Any]  # the whole request but text and image_data; input_ids among it
    connection: int
    at_s: float = field(default_factory=time.monotonic)
    did: str = ""  # the kind that answered it
    outcome: str = "running"  # answered, error, broken, aborted, gone
    status: int | None = None  # HTTP status of the answer
    cached_tokens: int | None = None  # tokens of the prompt that the prefix cache held, once answered
    answered_at_s: float | None = None

    @property
    def sampling(self) -> dict[str, Any]:
        return dict(self.body.get("sampling_params") or {})


def image_sha256(data: bytes | None) -> str | None:
    return None if data is None else sha256(data).hexdigest()


def asked(record: Recorded) -> dict[str, Any]:
    return {
        "nth": record.nth,
        "ask": record.ask,
        "image": record.image,
        "text": record.text,
        "sampling": record.sampling,
    }


def shown(record: Recorded) -> dict[str, Any]:
    return {name: getattr(record, name) for name in Recorded.__slots__}


def image_of(given: Any) -> tuple[bytes | None, str, str | None]:
    """(bytes, first characters, the error that SGLang gives) of image_data; one image or a list of one."""
    if isinstance(given, list):
        given = given[0] if given else None
    if given is None:
        return None, "", None
    text = str(given)
    head, comma, tail = text.partition(",")
    if text.startswith("/"):
        return None, text[:16], "internal"  # taken for a path: "File name too long"
    payload = tail if comma and head.startswith("data:") else text
    try:
        return base64.b64decode(payload, validate=True), (head + comma if comma else text[:16]), None
    except binascii.Error:
        return None, text[:16], "undecodable"

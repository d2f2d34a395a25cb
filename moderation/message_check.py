"""Reads what lies in Redis before kombu does: only what is well formed in every part goes on to it.

Rows are rung by messages of one form (see moderation.doorbell), and so are webhooks; from each the message is made anew,
so that no header or property but those that are meant comes to Celery. What comes over remote control, as an event or
as an answer is other people's form, and is checked in the parts that kombu relies on. Nothing is decompressed.
"""

import base64
import binascii
import math
import re
from typing import Any, TypeGuard

from pydantic_core import from_json

from moderation.doorbell import MORE, TASK
from moderation.webhook import TASK as DELIVER

MAX_RING_BYTES = 131_072  # a URI as it is shown, a policy, and up to a thousand ids
MAX_OTHER_BYTES = 8_388_608  # an answer to `celery inspect` lists what is in hand
_MAX_MORE = 1_000
_MAX_TEXT = 1_024
_ARGUMENTS = {TASK: frozenset({"id", "uri", "policy"}), DELIVER: frozenset({"webhook"})}
_JSON = "application/json"
_ID = re.compile("[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")  # a UUID as we write it


class MalformedMessage(Exception):
    """A message that kombu or Celery must not see. In a line for the log, without the message."""


def row_of(delivery_tag: str) -> str:
    """The id of the first row of the message that was delivered under this tag."""
    return delivery_tag.partition("#")[0]


def read_ring(raw: bytes, queue: str, *, serial: int) -> dict[str, Any]:
    """A message that names rows or a webhook, made anew for kombu. serial: tells deliveries of one row apart.

    Raises MalformedMessage for every other.
    """
    if len(raw) > MAX_RING_BYTES:
        raise MalformedMessage("it is too large")
    message = _object(_parsed(raw))
    headers, body = message.get("headers"), message.get("body")
    if not isinstance(headers, dict) or not isinstance(body, str) or headers.get("compression"):
        raise MalformedMessage("no headers, no body, or a compressed one")
    if message.get("content-type") != _JSON or message.get("content-encoding") != "utf-8":
        raise MalformedMessage("its body is not JSON")
    task, id_, more = headers.get("task"), headers.get("id"), headers.get(MORE) or []
    if not isinstance(task, str) or task not in _ARGUMENTS or not _is_id(id_):
        raise MalformedMessage("it names no task of ours")
    if not isinstance(more, list) or len(more) > _MAX_MORE or not all(map(_is_id, more)):
        raise MalformedMessage("it names rows by what is no id")
    _check_call(task, body)
    return {
        "body": body,
        "content-type": _JSON,
        "content-encoding": "utf-8",
        "headers": _headers(task, id_, more, headers.get("kwargsrepr")),
        "properties": {
            "correlation_id": id_,
            "delivery_info": {"exchange": "", "routing_key": queue},
            "body_encoding": "base64",
            "delivery_tag": f"{id_}#{serial}",
        },
    }


def read_fanout(raw: bytes, exchange: str) -> dict[str, Any]:
    """A message of remote control, or of events. Raises MalformedMessage."""
    message = read_reply(raw)
    said = _parsed(_decoded(message))
    if exchange.startswith("celeryev"):
        for event in said if isinstance(said, list) else [said]:
            _check_event(event)
    elif not isinstance(said, dict) or not isinstance(said.get("method"), str):
        raise MalformedMessage("it is no command")
    elif not isinstance(said.get("arguments") or {}, dict) or not _is_reply_to(said.get("reply_to")):
        raise MalformedMessage("it is a command of another form")
    return message


def read_reply(raw: bytes) -> dict[str, Any]:
    """A message of any kind whose parts are what kombu takes them for. Raises MalformedMessage."""
    if len(raw) > MAX_OTHER_BYTES:
        raise MalformedMessage("it is too large")
    message = _object(_parsed(raw))
    headers, properties = message.get("headers") or {}, _object(message.get("properties"))
    told = _object(properties.get("delivery_info"))
    if not isinstance(headers, dict) or headers.get("compression"):
        raise MalformedMessage("no headers, or a compressed body")
    if not isinstance(message.get("body"), str) or message.get("content-type") != _JSON:
        raise MalformedMessage("its body is not JSON")
    if message.get("content-encoding") != "utf-8" or properties.get("body_encoding") not in (None, "base64"):
        raise MalformedMessage("its body is in another encoding")
    texts = (properties.get("delivery_tag"), told.get("exchange"), told.get("routing_key"))
    if not all(isinstance(text, str) and len(text) <= _MAX_TEXT for text in texts):
        raise MalformedMessage("no delivery info")
    _parsed(_decoded(message))
    return message


def _headers(task: str, id_: str, more: list[str], shown: Any) -> dict[str, Any]:
    return {
        "lang": "py",
        "task": task,
        "id": id_,
        "root_id": id_,
        "parent_id": None,
        "group": None,
        "argsrepr": "()",
        "kwargsrepr": shown[:_MAX_TEXT] if isinstance(shown, str) else "{}",
        "ignore_result": True,
        MORE: more,
    }


def _check_call(task: str, body: str) -> None:
    """That the body is `[[], {...}, {...}]` with the arguments of the task, each a text, and nothing to do afterwards."""
    call = _parsed(_plain(body))
    if not isinstance(call, list) or len(call) != 3:
        raise MalformedMessage("its body is no call")
    args, kwargs, embed = call
    if args or not isinstance(kwargs, dict) or not isinstance(embed, dict) or any(embed.values()):
        raise MalformedMessage("its body is a call of another form")
    if kwargs.keys() - _ARGUMENTS[task] or not all(isinstance(value, str) for value in kwargs.values()):
        raise MalformedMessage("its arguments are not those of the task")
    if not _is_id(kwargs.get("id" if task == TASK else "webhook")):
        raise MalformedMessage("it names no row")


def _check_event(event: Any) -> None:
    """What Celery's state and Flower compute with or use as keys; the rest they show."""
    told = _object(event)
    if not all(
        isinstance(told.get(name), str) and 0 < len(told[name]) <= _MAX_TEXT for name in ("type", "hostname")
    ):
        raise MalformedMessage("an event without type or host")
    if told["type"].startswith("task-") and not isinstance(told.get("uuid"), str):
        raise MalformedMessage("an event of no task")
    for name in ("timestamp", "local_received", "clock", "pid", "freq", "runtime", "retries", "utcoffset"):
        if not _is_number(told.get(name)):
            raise MalformedMessage(f"an event whose {name} is no number")
    if told.get("timestamp") is None:
        raise MalformedMessage("an event without its time")
    if any(isinstance(value, dict) for value in told.values()):
        raise MalformedMessage("an event of another form")


def _is_number(value: Any) -> bool:
    """None too; and no number that cannot be a time or a count."""
    if value is None:
        return True
    return isinstance(value, int | float) and math.isfinite(value) and abs(value) < 2**53


def _is_reply_to(given: Any) -> bool:
    if given is None:
        return True
    return isinstance(given, dict) and all(
        isinstance(given.get(name), str) and len(given[name]) <= _MAX_TEXT
        for name in ("exchange", "routing_key")
    )


def _is_id(given: Any) -> TypeGuard[str]:
    return isinstance(given, str) and _ID.fullmatch(given) is not None


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise MalformedMessage("it is JSON, and not a message")
    return value


def _parsed(raw: bytes | str) -> Any:
    """Bounded by the parser: 200 levels, and numbers of 4,300 digits."""
    try:
        return from_json(raw, allow_inf_nan=False)
    except ValueError:
        raise MalformedMessage("it is not JSON") from None


def _decoded(message: dict[str, Any]) -> bytes | str:
    body: str = message["body"]
    return _plain(body) if message["properties"].get("body_encoding") == "base64" else body


def _plain(body: str) -> bytes:
    try:
        return base64.b64decode(body, validate=True)
    except (binascii.Error, ValueError):
        raise MalformedMessage("its body is not base64") from None

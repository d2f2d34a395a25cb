"""What is noted of a message that was rejected: bounded, and without secrets."""

import base64
import hashlib
from typing import Any

from pydantic_core import from_json, to_json

from moderation.celery_message import MessageRejected, Named
from moderation.ledger.rejected import Rejection
from moderation.plain_queue import Taken
from moderation.redaction import redact_text

_MOST_CHARACTERS = 4_000
_MOST_DETAIL = 500
_MOST_URI = 8_192  # as the ledger takes; a longer one could not be sent again


def rejection(taken: Taken, named: Named, why: MessageRejected) -> Rejection:
    """What `vetline rejected` shows and may send again."""
    return Rejection(
        sha256=hashlib.sha256(taken.raw).hexdigest(),
        code=why.code,
        detail=redact_text(str(why))[:_MOST_DETAIL],
        queue=taken.queue,
        size=taken.size,
        body=_shown(taken.raw)[:_MOST_CHARACTERS],
        task_id=named.task_id,
        task=named.task,
        uri=named.uri if named.uri is not None and len(named.uri) <= _MOST_URI else None,
        policy=None if named.policy is None else named.policy[:200],
        priority=int(named.priority),
        not_before=named.not_before,
        expires_at=named.expires_at,
    )


def _shown(raw: bytes) -> str:
    """The message for a person, its body decoded where that can be done at no risk."""
    try:
        message = from_json(raw)
    except ValueError:
        return redact_text(raw[: 2 * _MOST_CHARACTERS].decode("utf-8", "backslashreplace"))
    if isinstance(message, dict):
        message["body"] = _body(message.get("body"))
    return to_json(_redacted(message)).decode()


def _body(body: Any) -> Any:
    if not isinstance(body, str):
        return body
    try:
        return from_json(base64.b64decode(body, validate=True))
    except ValueError:
        return body


def _redacted(value: Any) -> Any:
    """Every text in it without the secrets of its URIs. The parser has bounded how deep it is."""
    if isinstance(value, str):
        return redact_text(value)
    if isinstance(value, dict):
        return {redact_text(key): _redacted(item) for key, item in value.items()}
    return [_redacted(item) for item in value] if isinstance(value, list) else value

"""What an answer of SGLang that is no generation means, by its cause: one of our errors, or "ask again".

Releases word errors in three JSON shapes and one text, sometimes the same error differently; see
`message_of`.
"""

import json
from typing import Any

from moderation.errors import JudgeTimeout, RequestRefused, RuntimeFault, RuntimeUnavailable, VetlineError

MAX_MESSAGE = 300  # characters; SGLang may quote the request


class Busy(Exception):
    """The server's queue is full, or it gave this request up for others: wait and ask again."""


class DuplicateRid(Exception):
    """The request id is in use: ask again under another."""


def error_of(status: int, body: bytes) -> VetlineError | Busy | DuplicateRid:
    """The error behind an HTTP answer whose status is not 200."""
    message = message_of(body)
    if status in (401, 403, 404):
        return RuntimeUnavailable(f"the server at this address does not serve us: HTTP {status}: {message}")
    if status in (408, 429) or (status == 503 and "running timeout" not in message):
        return Busy(message)
    if status == 503:  # it ran for longer than the server allows, and would again
        return JudgeTimeout(f"the server gave up: {message}")
    if 400 <= status < 500:
        duplicate = "duplicate request id" in message.lower()
        return DuplicateRid(message) if duplicate else RequestRefused(f"HTTP {status}: {message}")
    return RuntimeFault(f"HTTP {status}: {message}")


def abort_of(reason: dict[str, Any]) -> VetlineError | Busy:
    """The error behind HTTP 200 with finish reason abort."""
    status, message = reason.get("status_code"), _one_line(str(reason.get("message") or "no reason given"))
    if isinstance(status, int) and 400 <= status < 600:
        error = error_of(status, message.encode())
        return RuntimeFault(message) if isinstance(error, DuplicateRid) else error
    return RuntimeFault(f"the server aborted the request: {message}")


def message_of(body: bytes) -> str:
    """The message in {"error": {"message"}}, {"error": text}, {"message"}, {"detail"}, or the text itself."""
    text = body.decode("utf-8", "replace")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return _one_line(text)
    for key in ("error", "message", "detail"):
        if isinstance(value, dict) and key in value:
            value = value[key]
    return _one_line(value if isinstance(value, str) else json.dumps(value))


def _one_line(text: str) -> str:
    return " ".join(text.split())[:MAX_MESSAGE] or "(no message)"

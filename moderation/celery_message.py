"""Reads what a plain Celery client wrote: protocol 1 and 2, as Celery, celery-node, gocelery and celery-php write it.

The bytes are a stranger's. Each is read within bounds of size and nesting, nothing is decompressed, no object is made
but those of JSON, and whatever cannot be read is a MessageRejected with a stable reason.
"""

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from pydantic import ValidationError
from pydantic_core import from_json

from moderation.assessment import Priority, Submission
from moderation.doorbell import MORE, TASK

MAX_MESSAGE_BYTES = 262_144  # a URI may have 8 KiB; what is added to it is a client's headers
_MAX_KEY = 255  # characters of a task id; the row's key is `celery:` and the id
_MAX_ROWS = 1_000  # that one ring may name
_LOW_FROM = 6  # of Celery's 0 (first, and where nothing is said) to 9
_TEXTS = (
    "utf-8",
    "utf8",
    "us-ascii",
    "ascii",
    "binary",
    "",
)  # `binary` is what some clients call JSON in base64
_JSON = ("application/json", "json", "")
_ARGUMENTS = ("uri", "policy")

REASONS: Mapping[str, str] = {
    "not_json": "the message is not JSON",
    "not_a_message": "it is JSON, and not a Celery message",
    "message_too_large": "the message is larger than is read",
    "compressed": "the body is compressed, and nothing is decompressed here",
    "content_type": "the body is not JSON: no pickle, YAML or msgpack is read",
    "content_encoding": "the body is not UTF-8",
    "bad_body": "the body cannot be read",
    "unknown_task": "the task is not vetline.assess",
    "bad_arguments": "the arguments are not a uri and a policy",
    "bad_id": "the id is not that of an assessment",
    "bad_time": "eta or expires is not a time in ISO 8601",
    "expired": "the message came when it had expired",
    "workflow": "links, chains, chords and errbacks are not run here",
    "invalid_submission": "the uri or policy cannot be accepted",
    "unknown_policy": "no such policy, or a retired one",
    "internal_error": "a defect here, which the log tells of",
}


class MessageRejected(Exception):
    """A message from which no row can be made. code: one of REASONS; stored and graphed, so never renamed."""

    def __init__(self, code: str, detail: str = "") -> None:
        super().__init__(detail or REASONS[code])
        self.code = code


@dataclass(frozen=True, slots=True)
class Named:
    """What a message says of itself, as far as it could be read: for who lists what was rejected."""

    task_id: str | None = None
    task: str | None = None
    uri: str | None = None
    policy: str | None = None
    priority: Priority = Priority.NORMAL
    not_before: datetime | None = None
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class PlainSubmission:
    """An image that a message brought."""

    submission: Submission
    named: Named


@dataclass(frozen=True, slots=True)
class Ring:
    """Rows that a message names, as those of the previous release do."""

    ids: tuple[UUID, ...]


def read_message(
    raw: bytes, *, size: int, step: int = 0
) -> tuple[Named, PlainSubmission | Ring | MessageRejected]:
    """What a message is, and what it says of itself. Never raises.

    raw: the message, or its head where it is larger than is read. size: of the whole, in bytes.
    step: that of the priority's list that it lay in.
    """
    reader = _Reader(step)
    try:
        if size > MAX_MESSAGE_BYTES or len(raw) < size:
            raise MessageRejected("message_too_large", f"{size} bytes; {MAX_MESSAGE_BYTES} are read")
        found: PlainSubmission | Ring | MessageRejected = reader.read(raw)
    except MessageRejected as rejected:
        found = rejected
    return reader.named, found


class _Reader:
    """Reads one message step by step, and keeps what it knows where a step fails."""

    def __init__(self, step: int) -> None:
        self._said: dict[str, Any] = {"priority": _priority(step)}

    @property
    def named(self) -> Named:
        return Named(**self._said)

    def read(self, raw: bytes) -> PlainSubmission | Ring:
        message = _json(raw, "not_json")
        if not isinstance(message, dict):
            raise MessageRejected("not_a_message")
        headers, properties = _part(message, "headers"), _part(message, "properties")
        self._note_priority(properties)
        for told in (headers, properties):
            self._note_names(told.get("id") or told.get("correlation_id"), told.get("task"))
        body = _body(message, headers, properties)
        head, args, kwargs, embed = _call(headers, body)
        self._note_names(head.get("id"), head.get("task"))
        return self._called(head, args, kwargs, embed, raw)

    def _called(
        self, head: Mapping[str, Any], args: list[Any], kwargs: dict[str, Any], embed: Any, raw: bytes
    ) -> PlainSubmission | Ring:
        if head.get("task") != TASK:
            raise MessageRejected("unknown_task")
        arguments = _arguments(args, kwargs)
        if "id" in arguments:
            return Ring(_rows([arguments["id"], *_more(head)]))
        self._note_image(arguments)
        _check_workflow(head, embed)
        self._note_times(head)
        return self._submission(arguments, raw)

    def _submission(self, arguments: Mapping[str, Any], raw: bytes) -> PlainSubmission:
        named = self.named
        if named.expires_at is not None and named.expires_at <= datetime.now(UTC):
            raise MessageRejected("expired", f"it expired at {named.expires_at:%Y-%m-%d %H:%M:%S} UTC")
        try:
            submission = Submission(
                uri=arguments["uri"],
                policy=arguments["policy"],
                key=f"celery:{named.task_id or hashlib.sha256(raw).hexdigest()}",
                priority=named.priority,
                not_before=named.not_before,
                expires_at=named.expires_at,
            )
        except ValidationError as exc:
            first = exc.errors(include_url=False, include_input=False)[0]
            field = ".".join(str(part) for part in first["loc"])
            raise MessageRejected(
                "invalid_submission", f"{field}: {first['msg'].removeprefix('Value error, ')}"
            ) from None
        return PlainSubmission(submission, named)

    def _note_priority(self, properties: Mapping[str, Any]) -> None:
        given = properties.get("priority")
        if isinstance(given, int) and not isinstance(given, bool) and given:
            self._said["priority"] = _priority(given)

    def _note_names(self, id_: Any, task: Any) -> None:
        if isinstance(id_, str) and 0 < len(id_) <= _MAX_KEY:
            self._said.setdefault("task_id", id_)
        if isinstance(task, str):
            self._said.setdefault("task", task[:_MAX_KEY])

    def _note_image(self, arguments: Mapping[str, Any]) -> None:
        self._said |= {name: arguments[name] for name in _ARGUMENTS}

    def _note_times(self, head: Mapping[str, Any]) -> None:
        self._said["not_before"] = _time(head.get("eta"))
        self._said["expires_at"] = _time(head.get("expires"))


def _priority(celery: int) -> Priority:
    """Celery's numbers on Redis: 0 is first, and what says nothing is 0, so that nothing comes before it."""
    return Priority.LOW if celery >= _LOW_FROM else Priority.NORMAL


def _json(raw: bytes | str, code: str) -> Any:
    """Bounded by the parser: 200 levels, 4,300 digits."""
    try:
        return from_json(raw, allow_inf_nan=False)
    except ValueError as exc:
        raise MessageRejected(code, f"{REASONS[code]}: {exc}") from None


def _part(message: Mapping[str, Any], name: str) -> dict[str, Any]:
    found = message.get(name)
    if not found or isinstance(found, dict):  # PHP writes an empty object as []
        return found or {}
    raise MessageRejected("not_a_message", f"{name} is not an object")


def _body(message: Mapping[str, Any], headers: Mapping[str, Any], properties: Mapping[str, Any]) -> Any:
    if headers.get("compression"):
        raise MessageRejected("compressed")
    if str(message.get("content-type") or "").partition(";")[0].strip().lower() not in _JSON:
        raise MessageRejected("content_type", f"{str(message.get('content-type'))[:80]} is not JSON")
    if str(message.get("content-encoding") or "").lower() not in _TEXTS:
        raise MessageRejected("content_encoding")
    body = message.get("body")
    if not isinstance(body, str):
        raise MessageRejected("bad_body", "the body is not a text")
    encoding = properties.get("body_encoding")
    if encoding == "base64":
        try:
            return _json(base64.b64decode(body, validate=True), "bad_body")
        except ValueError:
            raise MessageRejected("bad_body", "the body is not base64") from None
    if encoding not in (None, "utf-8", "utf8"):
        raise MessageRejected("bad_body", "the body's encoding is neither base64 nor UTF-8")
    return _json(body, "bad_body")


def _call(headers: dict[str, Any], body: Any) -> tuple[dict[str, Any], list[Any], dict[str, Any], Any]:
    """Headers, positional and named arguments and the rest: protocol 2 has them in a list, protocol 1 in an object."""
    if isinstance(body, list) and len(body) in (2, 3):
        args, kwargs, embed = body[0], body[1], (body[2] if len(body) == 3 else None)
        head = headers
    elif isinstance(body, dict):
        args, kwargs, embed = body.get("args"), body.get("kwargs"), body
        head = {**body, **headers}
    else:
        raise MessageRejected("bad_body", "the body is no call: [args, kwargs, embed] or an object with both")
    args, kwargs = args or [], kwargs or {}  # null from Node, [] for an object from PHP
    if not isinstance(args, list) or not isinstance(kwargs, dict):
        raise MessageRejected("bad_arguments")
    return head, args, kwargs, embed


def _arguments(args: list[Any], kwargs: dict[str, Any]) -> dict[str, Any]:
    """`uri` and `policy` by name, or both by place; or `id`, for a row that is there."""
    if unknown := sorted(kwargs.keys() - {*_ARGUMENTS, "id"}):
        raise MessageRejected("bad_arguments", f"there is no argument {unknown[0][:80]!r}")
    if len(args) == 3:  # as the task was called in 0.1: id, uri, policy
        args = args if args[0] is not None else args[1:]
    names = _ARGUMENTS if len(args) <= len(_ARGUMENTS) else ("id", *_ARGUMENTS)
    if len(args) > len(names) or kwargs.keys() & set(names[: len(args)]):
        raise MessageRejected("bad_arguments")
    given = dict(zip(names, args, strict=False)) | {k: v for k, v in kwargs.items() if v is not None}
    if "id" not in given and not all(isinstance(given.get(name), str) for name in _ARGUMENTS):
        raise MessageRejected("bad_arguments", "a message brings a uri and a policy, each a text")
    return given


def _more(head: Mapping[str, Any]) -> list[Any]:
    more = head.get(MORE) or []
    if not isinstance(more, list) or len(more) >= _MAX_ROWS:
        raise MessageRejected("bad_id", f"{MORE} is not a list of ids")
    return more


def _rows(ids: list[Any]) -> tuple[UUID, ...]:
    try:
        return tuple(UUID(id_) for id_ in ids)
    except (ValueError, AttributeError, TypeError):
        raise MessageRejected("bad_id", "the message's id is not a UUID") from None


def _check_workflow(head: Mapping[str, Any], embed: Any) -> None:
    """What a client wants done afterwards would be left undone in silence."""
    told = embed if isinstance(embed, dict) else {}
    if any(told.get(name) for name in ("callbacks", "errbacks", "chain", "chord")) or head.get("chord"):
        raise MessageRejected("workflow")


def _time(given: Any) -> datetime | None:
    """A time with its zone; UTC where it says none, as Celery means it."""
    if given is None:
        return None
    try:
        found = datetime.fromisoformat(given)
        return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
    except (TypeError, ValueError, OverflowError):
        raise MessageRejected("bad_time", f"{str(given)[:40]!r} is not a time in ISO 8601") from None

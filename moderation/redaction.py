"""URIs without their secrets, for logs, messages, errors and whatever outlives an open assessment.

A URI may carry a password (userinfo), a signature (a presigned query string), or a token in its path. What is
left here says which image is meant, and opens nothing.
"""

import re
from collections.abc import Mapping, MutableMapping
from itertools import pairwise
from typing import Any

MARK = _ELLIPSIS = "…"  # stands wherever something was taken out
_MAX_LENGTH = 512  # characters

_URI = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]{0,20}):(.*)", re.DOTALL)
_AUTHORITY = re.compile(r"(?:[A-Za-z0-9._\-]+|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?")
_MEDIA_TYPE = re.compile(r"[A-Za-z0-9]+/[A-Za-z0-9.+\-]{1,60}")
# What is left of a data URI; in a text a URI ends at a space, so there it may come without its last word.
_REDACTED_DATA = re.compile(rf"(?:{_MEDIA_TYPE.pattern})?,{_ELLIPSIS}\(\d{{1,10}}(?: characters\))?")

# Parameters that choose a rendition, and values that are too short and plain to be a key.
_PLAIN_PARAMETERS = frozenset(
    {"w", "h", "width", "height", "size", "fit", "fm", "format", "q", "quality", "dpr", "page", "versionid"}
)
_PLAIN_VALUE = re.compile(r"[A-Za-z]{1,10}|\d{1,6}(?:[x.,]\d{1,6})?")
_VERSION_ID = re.compile(r"[A-Za-z0-9._\-]{1,64}")

# Parts of a path that open something. Plain hexadecimal and UUIDs stay: they are how content is named.
_TOKENS = (
    re.compile(r"eyJ[A-Za-z0-9_\-]{5,}\.[A-Za-z0-9_\-.]*"),  # JSON web tokens
    re.compile(r"(?:bot)?\d{6,12}:[A-Za-z0-9_\-]{20,}"),  # Telegram
    re.compile(r"(?:AKIA|ASIA)[A-Z0-9]{12,}"),  # AWS access keys
    re.compile(r"(?i)(?<=[=:])[^/]+"),  # token=..., sig:...
)
_NAMED_SECRET = re.compile(r"(?i)(?:secret|token|passw|apikey|api_key|signature|sig|auth|session|jwt|bearer)")
_LONG = re.compile(r"[A-Za-z0-9_\-]{24,}")
_HEXADECIMAL = re.compile(r"[0-9A-Fa-f\-]+")
_IN_TEXT = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]{1,20}:(?://|\\\\)[^\s\"'<>]+|data:[^\s\"'<>]+")


def redact_uri(uri: str) -> str:
    """The URI with userinfo, query, fragment and token-like parts of its path taken out. Never raises.

    Redacting twice changes nothing. The result is at most 512 characters of one printable line.
    """
    match = _URI.fullmatch(uri.strip())
    if match is None:
        return _ELLIPSIS
    scheme, rest = match[1].lower(), match[2]
    if scheme == "data":
        return _redact_data(rest)
    if scheme in ("http", "https", "s3", "file") and rest.startswith("//"):
        return _shorten(f"{scheme}://{_redact_hierarchy(scheme, rest[2:])}")
    return f"{scheme}:{_ELLIPSIS}" if scheme in ("http", "https", "s3", "file", "ftp") else _ELLIPSIS


def without_secrets(uri: str) -> str:
    """The URI to keep once it need not be fetched any more. A file's place is no secret, and opens nothing elsewhere."""
    return uri if uri.startswith("file:") else redact_uri(uri)


def redact_text(text: str) -> str:
    """Text, such as a foreign exception's, with every URI in it redacted."""
    return _IN_TEXT.sub(lambda match: redact_uri(match[0]), text)


def redact_event(_logger: object, _method: str, event: MutableMapping[str, Any]) -> Mapping[str, Any]:
    """A structlog processor: redacts the URIs in every string of an event."""
    for key, value in event.items():
        if isinstance(value, str) and ":" in value:
            event[key] = redact_text(value)
    return event


def _redact_data(rest: str) -> str:
    if _REDACTED_DATA.fullmatch(rest):
        return f"data:{rest}"
    media_type = _MEDIA_TYPE.match(rest)
    return f"data:{media_type[0] if media_type else ''},{_ELLIPSIS}({len(rest)} characters)"


def _redact_hierarchy(scheme: str, rest: str) -> str:
    """What follows `scheme://`."""
    before, _, _fragment = rest.partition("#") if scheme != "s3" else (rest, "", "")
    before, question, query = before.partition("?")
    authority, slash, path = before.partition("/")
    authority = authority.rpartition("@")[2]
    if authority and not _AUTHORITY.fullmatch(authority):
        return _ELLIPSIS  # no host that we would fetch from, so no telling where a secret begins
    if ":" in authority and "@" in path:
        path = _ELLIPSIS  # `user:12/34@host`: a password with a slash in it
    text = (
        authority + slash + "/".join(_redact_segment(part) for part in _until_nested_query(path).split("/"))
    )
    return text + (question and f"?{_redact_query(query)}")


def _until_nested_query(path: str) -> str:
    """A path may hold another URI, with its own query: cut there."""
    cut = re.search(r"(?i)%3f|%26|&|\\", path)
    return path if cut is None else path[: cut.start()] + _ELLIPSIS


def _redact_segment(segment: str) -> str:
    if "%40" in segment or re.search(r"[^@]:[^@]*@", segment):
        return _ELLIPSIS
    for token in _TOKENS:
        segment = token.sub(_ELLIPSIS, segment)
    if _NAMED_SECRET.search(segment) and _LONG.search(segment):
        return _ELLIPSIS
    return _LONG.sub(lambda match: _ELLIPSIS if _is_random(match[0]) else match[0], segment)


def _is_random(word: str) -> bool:
    """Whether a long word looks drawn at random, from more than hexadecimal digits; slugs and dates do not."""
    if _HEXADECIMAL.fullmatch(word) or all(map(_is_plain, re.split("[_-]", word))):
        return False
    kinds = sum(any(map(test, word)) for test in (str.isdigit, str.islower, str.isupper))
    changes = sum(a.isalpha() != b.isalpha() or a.isupper() != b.isupper() for a, b in pairwise(word))
    return kinds >= 2 and changes >= len(word) / 4


def _is_plain(part: str) -> bool:
    return len(part) <= 4 or part.isdigit() or (part.isalpha() and (part[1:].islower() or part.isupper()))


def _redact_query(query: str) -> str:
    kept, dropped = [], False
    for part in query.split("&"):
        name, equals, value = part.partition("=")
        plain = _VERSION_ID if name.lower() == "versionid" else _PLAIN_VALUE
        if name.lower() in _PLAIN_PARAMETERS and equals and plain.fullmatch(value):
            kept.append(part)
        else:
            dropped = True
    return "&".join([*kept, _ELLIPSIS] if dropped else kept)


def _shorten(text: str) -> str:
    printable = "".join(letter if letter.isprintable() and letter != " " else _ELLIPSIS for letter in text)
    return printable if len(printable) <= _MAX_LENGTH else printable[: _MAX_LENGTH - 1] + _ELLIPSIS

"""Tokens of the API. A file has a line for each: name, role, and the token's SHA-256, never the token."""

import hashlib
import hmac
import re
import secrets
import time
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from moderation.errors import BadSetting
from moderation.log import get_logger

log = get_logger(__name__)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_LINE = re.compile(rf"({_NAME.pattern})\s+(submit|read|admin)\s+([0-9a-f]{{64}})")
_LOOK_AGAIN_S = 1.0  # a token that was taken out of the file opens nothing after this


class Role(StrEnum):
    """admin may do what the others may."""

    SUBMIT = "submit"
    READ = "read"
    ADMIN = "admin"

    def may(self, wanted: "Role") -> bool:
        return self in {wanted, Role.ADMIN}


@dataclass(frozen=True, slots=True)
class Bearer:
    """Who holds a token; name: as the file calls them."""

    name: str
    role: Role


ANYBODY = Bearer("", Role.ADMIN)  # where the API was opened without tokens, on loopback


class Tokens:
    """The file's tokens; it is read again when it changes. Raises BadSetting where it cannot be read at first."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._bearers = _read(path)
        self._changed = _mark(path)
        self._look_at = 0.0

    def bearer(self, token: str) -> Bearer | None:
        """Who holds the token; None where nobody does. Takes as long for a nearly right one as for any other."""
        self._refresh()
        digest = hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()
        match = None
        for known, bearer in self._bearers:
            if hmac.compare_digest(known, digest):
                match = bearer
        return match

    def _refresh(self) -> None:
        if time.monotonic() < self._look_at:
            return
        self._look_at = time.monotonic() + _LOOK_AGAIN_S
        if (mark := _mark(self._path)) == self._changed:
            return
        try:
            self._bearers = _read(self._path)
        except BadSetting as exc:  # half written, perhaps: those that were good stay so
            log.error("tokens_unreadable", error=str(exc))
        else:
            self._changed = mark
            log.info("tokens_read", count=len(self._bearers))


def issue(path: Path, name: str, role: Role) -> str:
    """Make a token, add its line to the file, and return it: it is nowhere else. Raises BadSetting."""
    if not _NAME.fullmatch(name):
        raise BadSetting("a token's name has up to 64 letters, digits, dots, dashes and underscores")
    if path.exists() and any(bearer.name == name for _, bearer in _read(path)):
        raise BadSetting(f"{path} names {name!r} already; take its line out first")
    token = "vetline_" + secrets.token_urlsafe(32)  # 256 bits; the prefix is for scanners of leaked secrets
    try:
        path.touch(mode=0o600)
        with path.open("a") as file:
            file.write(f"{name} {role} {hashlib.sha256(token.encode()).hexdigest()}\n")
    except OSError as exc:
        raise BadSetting(f"{path}: {exc.strerror}") from exc
    return token


def _read(path: Path) -> list[tuple[str, Bearer]]:
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as exc:
        raise BadSetting(f"the file of tokens {path} cannot be read: {exc}") from exc
    known = []
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("#"):
            continue
        if (match := _LINE.fullmatch(line.strip())) is None:
            raise BadSetting(f"{path}, line {number}: write NAME ROLE SHA256, as `vetline token` does")
        known.append((match[3], Bearer(match[1], Role(match[2]))))
    return known


def _mark(path: Path) -> tuple[int, int]:
    try:
        stat = path.stat()
    except OSError:
        return (0, 0)
    return (stat.st_mtime_ns, stat.st_size)

"""A small process that keeps one local server for as long as any command uses it.

Commands that run side by side in one folder share a server, and it stops with the last of them, however that
ends. The kernel counts them: each holds a shared lock on the file `users`, and the keeper stops the server
once it can have that lock to itself. A command that comes while it stops waits, then starts the next one.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from moderation.errors import VetlineError
from moderation.services.folder import private_text
from moderation.services.lock import FileLock
from moderation.services.postgres import LocalPostgres
from moderation.services.redis import LocalRedis

_LOOK_S = 0.05  # how soon after the last user it stops


class LocalServer(Protocol):
    @property
    def url(self) -> str: ...

    def alive(self) -> bool: ...

    def stop(self) -> None: ...


_SERVERS: dict[str, Callable[[Path], LocalServer]] = {
    "postgres": LocalPostgres.start,
    "redis": LocalRedis.start,
}


def keep(service: str, folder: Path) -> None:
    """Start the server, say its URL as one JSON line on stdout, and stop it after its last user."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with FileLock(folder / "kept") as kept, FileLock(folder / "users") as users:
        kept.take()  # held for a moment longer by a keeper whose server died
        try:
            server = _SERVERS[service](folder)
        except VetlineError as exc:
            return _say({"problem": str(exc)})
        announcement = folder / "url"
        try:
            private_text(announcement, server.url)
            _say({"url": server.url})
            while server.alive() and not users.try_take():
                time.sleep(_LOOK_S)
        finally:
            announcement.unlink(missing_ok=True)
            server.stop()
    return None


def _say(what: dict[str, str]) -> None:
    """Answer, then close stdout: whoever started us reads up to its end."""
    os.write(1, json.dumps(what).encode())
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)


def main() -> None:
    keep(sys.argv[1], Path(sys.argv[2]))

"""A Redis with the users of infra/redis, each with a password of its own."""

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import redis

from moderation.services.child import LOOPBACK, ChildProcess, start_on_a_port
from moderation.services.redis import _program

SCRIPT = Path(__file__).parents[2] / "infra" / "redis" / "users.sh"
USERS = ("admin", "producer", "plain", "worker", "flower", "watcher")
PASSWORDS = {user: f"{user}-s3cret/+@:%" for user in USERS}  # what a URL must have quoted


class GuardedRedis:
    """A running server that lets in only those users."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.admin = redis.Redis(port=port, username="admin", password=PASSWORDS["admin"])

    def url_of(self, user: str, *, port: int | None = None, scheme: str = "redis") -> str:
        return f"{scheme}://{user}:{quote(PASSWORDS[user], safe='')}@{LOOPBACK}:{port or self.port}/0"

    def refused(self) -> list[str]:
        """What ACL LOG says of it: by whom, what, and what kind of rule it was against."""
        log: list[dict[str, Any]] = self.admin.acl_log(100)  # type: ignore[assignment]  # it answers at once
        return [f"{entry['username']}: {entry['object']} ({entry['reason']})" for entry in log]


def acl(*, prefix: str = "") -> str:
    """The file that Redis reads."""
    env = {f"REDIS_{user.upper()}_PASSWORD": password for user, password in PASSWORDS.items()}
    written = subprocess.run(
        ["/bin/sh", str(SCRIPT)],
        env=env | {"PATH": "/usr/bin:/bin", "VETLINE_QUEUE_KEY_PREFIX": prefix},
        capture_output=True,
        text=True,
        check=True,
    )
    return written.stdout


@contextmanager
def guarded_redis(folder: Path, *, prefix: str = "") -> Iterator[GuardedRedis]:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "users.acl"
    file.write_text(acl(prefix=prefix))

    def launch(port: int) -> ChildProcess:
        config = f'bind {LOOPBACK}\nport {port}\naclfile "{file}"\nsave ""\nappendonly no\n'
        child = ChildProcess(
            [str(_program()), "-"],
            log=folder / "log",
            stop_signal=signal.SIGTERM,
            env={"PATH": "/usr/bin:/bin", "LC_ALL": "C"},
            config=config,
        )
        child.wait_until(lambda: "Ready to accept connections" in child.logged(), timeout_s=30)
        return child

    child, port = start_on_a_port("Redis", None, launch)
    guarded = GuardedRedis(port)
    try:
        yield guarded
    finally:
        guarded.admin.close()
        child.stop([signal.SIGTERM, signal.SIGKILL], patience_s=10)

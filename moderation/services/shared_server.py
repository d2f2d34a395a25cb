"""A local server that commands share: found running or started, and let go at the end."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import moderation
from moderation.errors import ServiceMissing
from moderation.services.folder import owned_folder
from moderation.services.lock import FileLock, is_taken

_START_TIMEOUT_S = 120  # a crashed cluster replays its log first
_STOP_TIMEOUT_S = 30
_LOOK_S = 0.02

# Started by a shell that ends at once, so that the keeper is nobody's child: it may outlive the command that
# started it, for the sake of another, and leaves no zombie behind in a worker that runs for months.
_DETACH = '"$@" &'
_RUN = "import sys; sys.path.insert(0, sys.argv.pop(1)); from moderation.services.keeper import main; main()"


@contextmanager
def shared_server(service: str, data_dir: Path) -> Iterator[str]:
    """The URL of `postgres` or `redis` in data_dir/service, which runs at least until the block ends.

    Raises ServiceMissing where it cannot be started.
    """
    folder = owned_folder(owned_folder(data_dir.resolve()) / service)
    with FileLock(folder / "users") as users:
        users.share()
        try:
            yield _running(folder) or _started(service, folder)
        finally:
            users.release()
            _wait_if_last(folder)


def _running(folder: Path) -> str | None:
    if not is_taken(folder / "kept"):
        return None
    try:
        return (folder / "url").read_text()
    except FileNotFoundError:
        return None


def _started(service: str, folder: Path) -> str:
    """Start a keeper, one command at a time; whoever waited finds it running."""
    with FileLock(folder / "starting") as starting:
        starting.take()
        return _running(folder) or _start(service, folder)


def _start(service: str, folder: Path) -> str:
    source = Path(moderation.__file__).parent.parent
    keeper = [sys.executable, "-P", "-c", _RUN, str(source), service, str(folder)]
    with (folder / "keeper.log").open("ab") as log:
        try:
            output = subprocess.run(
                ["/bin/sh", "-c", _DETACH, "sh", *keeper],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
                timeout=_START_TIMEOUT_S,
                check=False,
            ).stdout
        except subprocess.TimeoutExpired as exc:
            raise ServiceMissing(f"{service} was not ready in {_START_TIMEOUT_S} s; see {log.name}") from exc
    answer: dict[str, str] = json.loads(output) if output else {}
    if "url" not in answer:
        raise ServiceMissing(answer.get("problem") or f"{service} did not start; see {log.name}")
    return answer["url"]


def _wait_if_last(folder: Path) -> None:
    """Return once the keeper has stopped the server, or at once where another command uses it."""
    deadline = time.monotonic() + _STOP_TIMEOUT_S
    with FileLock(folder / "users") as users:
        while is_taken(folder / "kept") and time.monotonic() < deadline:
            if users.try_take():  # nobody has it: the keeper is about to notice
                users.release()
            elif users.try_share():  # not alone, but shared: another command has it
                return
            time.sleep(_LOOK_S)

"""`vetline up`: everything on one machine, in the foreground, until Ctrl-C."""

import os
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path

from moderation.errors import ServiceMissing
from moderation.services.announcement import Announcement, announcing
from moderation.services.child import LOOPBACK, Child, free_port
from moderation.services.desk import Services, resolve
from moderation.services.folder import secret_in
from moderation.services.lock import is_taken
from moderation.settings import ServiceSettings
from worker.crew import STOP_OTHER_S, STOP_WORKER_S, Member, environment, file_root, prepare, start, vetline
from worker.images.settings import FetchSettings
from worker.interleave import Interleaved
from worker.stopping import Stopped, Stopping

_FLOWER_PORT = 5555  # where people look for it
_LOOK_S = 0.2
_NAMES = ("up", "worker", "flower", "postgres", "redis")


def up(*, worker_options: Sequence[str] = (), flower: bool = True, flower_port: int | None = None) -> int:
    """Start what is not running, migrate, run a worker and Flower until told to stop. Returns the exit code.

    worker_options: for `vetline worker`, such as ("--judge", "open-nsfw").
    flower_port: on loopback; None takes 5555, or a free one where that is taken.
    Raises Misuse or Unavailable, in one line, where something cannot be started.
    """
    told = Interleaved(sys.stderr, _NAMES)
    with Stopping() as stopping:
        try:
            _serve(told, stopping, worker_options, (flower_port or _flower_port()) if flower else None)
        except Stopped:
            told.say("up", "stopped")
        return stopping.code


def _serve(told: Interleaved, stopping: Stopping, worker_options: Sequence[str], port: int | None) -> None:
    with ExitStack() as held:
        with stopping.at_once():
            services = held.enter_context(resolve(need_redis=True))
        held.callback(told.stop)
        _prepare(services, told)
        held.enter_context(announcing(ServiceSettings().data_dir, _announcement(services, port)))
        _follow_services(services, told)
        members = held.enter_context(_running(services, told, stopping, worker_options, port))
        _watch(services, members, told, stopping)


def _prepare(services: Services, told: Interleaved) -> None:
    before, after, put_back = prepare(services)
    told.say(
        "up", f"Postgres {services.database_from}, Redis {services.redis_from}, tables {before} -> {after}"
    )
    for line in put_back:
        told.say("up", line)


def _flower_port() -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as Flower itself binds
        try:
            probe.bind((LOOPBACK, _FLOWER_PORT))
        except OSError:
            return free_port()
    return _FLOWER_PORT


def _announcement(services: Services, flower_port: int | None) -> Announcement:
    return Announcement(
        pid=os.getpid(),
        started_at=datetime.now(UTC),
        database_url=services.database_url,
        redis_url=services.redis_url,
        flower_url=f"http://{LOOPBACK}:{flower_port}/" if flower_port else None,
    )


def _started_here(services: Services) -> dict[str, Path]:
    """The folders of the servers that are kept for us, by name."""
    origins = {"postgres": services.database_from, "redis": services.redis_from}
    return {
        name: ServiceSettings().data_dir / name
        for name, origin in origins.items()
        if origin == "started here"
    }


def _follow_services(services: Services, told: Interleaved) -> None:
    for name, folder in _started_here(services).items():
        told.tail(name, folder / "log")


@contextmanager
def _running(
    services: Services, told: Interleaved, stopping: Stopping, options: Sequence[str], port: int | None
) -> Iterator[list[Member]]:
    """The worker and Flower for the length of the block; the worker is the first to be stopped."""
    members: list[Member] = []
    try:
        stopping.check()
        members.append(Member("worker", lambda: _worker(services, told, options), stop_s=STOP_WORKER_S))
        if port:
            members.append(Member("flower", lambda: _flower(services, told, port), stop_s=STOP_OTHER_S))
        yield members
    finally:
        if members:
            told.say("up", "stopping; images in hand finish or are given back (Ctrl-C again: at once)")
        for member in members:
            member.stop(stopping)


def _worker(services: Services, told: Interleaved, options: Sequence[str]) -> Child:
    more = {"VETLINE_LOG_STYLE": "console"} if sys.stderr.isatty() else {}
    # A single machine's own folder may be read, unless it was said what may; elsewhere file: stays off.
    if not FetchSettings().file_roots:
        more["VETLINE_FETCH_FILE_ROOTS"] = file_root(Path.cwd())
    child = start(vetline("worker", *options), environment(services, **more))
    told.follow("worker", child.output)
    return child


def _flower(services: Services, told: Interleaved, port: int) -> Child:
    """On loopback, read-only and behind a password: it shows images."""
    password_file = ServiceSettings().data_dir / "flower-password"
    env = environment(services, FLOWER_BASIC_AUTH=f"vetline:{secret_in(password_file)}")
    child = start(vetline("flower", f"--address={LOOPBACK}", f"--port={port}"), env)
    told.follow("flower", child.output)
    told.say("up", f"Flower: http://{LOOPBACK}:{port}/ (user vetline, password in {password_file})")
    return child


def _watch(services: Services, members: Sequence[Member], told: Interleaved, stopping: Stopping) -> None:
    """Until something cannot go on: raises what Member.look raises, or ServiceMissing when a server ended."""
    kept = _started_here(services)
    while True:
        stopping.check()
        for member in members:
            if happened := member.look():
                told.say(member.name, happened)
        for name, folder in kept.items():
            if not is_taken(folder / "kept"):
                raise ServiceMissing(f"{name} ended; see {folder / 'log'}")
        time.sleep(_LOOK_S)

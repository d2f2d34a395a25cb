"""`vetline up`: everything on one machine, in the foreground, until Ctrl-C."""

import os
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path

from intake.settings import FetchSettings
from moderation.errors import ServiceMissing
from moderation.services.child import LOOPBACK, ChildProcess, free_port
from moderation.services.folder import secret_in
from moderation.services.lock import is_taken
from moderation.services.resolve import Services, resolve
from moderation.services.run_file import RunFile, keep_run_file
from moderation.settings import ServiceSettings
from worker.host.child_processes import (
    STOP_OTHER_S,
    STOP_WORKER_S,
    SupervisedProcess,
    environment,
    file_root,
    prepare,
    start,
    vetline,
)
from worker.host.graceful_stop import GracefulStop, StopRequested
from worker.host.log_multiplexer import LogMultiplexer

_FLOWER_PORT = 5555  # where people look for it
_LOOK_S = 0.2
_NAMES = ("up", "worker", "flower", "postgres", "redis")


def up(*, worker_options: Sequence[str] = (), flower: bool = True, flower_port: int | None = None) -> int:
    """Start what is not running, migrate, run a worker and Flower until told to stop. Returns the exit code.

    worker_options: for `vetline worker`, such as ("--judge", "open-nsfw").
    flower_port: on loopback; None takes 5555, or a free one where that is taken.
    Raises Misuse or Unavailable, in one line, where something cannot be started.
    """
    logs = LogMultiplexer(sys.stderr, _NAMES)
    with GracefulStop() as stopping:
        try:
            _serve(logs, stopping, worker_options, (flower_port or _flower_port()) if flower else None)
        except StopRequested:
            logs.say("up", "stopped")
        return stopping.code


def _serve(
    logs: LogMultiplexer, stopping: GracefulStop, worker_options: Sequence[str], port: int | None
) -> None:
    with ExitStack() as held:
        with stopping.at_once():
            services = held.enter_context(resolve(need_redis=True))
        held.callback(logs.stop)
        _prepare(services, logs)
        held.enter_context(keep_run_file(ServiceSettings().data_dir, _announcement(services, port)))
        _follow_services(services, logs)
        processes = held.enter_context(_running(services, logs, stopping, worker_options, port))
        _watch(services, processes, logs, stopping)


def _prepare(services: Services, logs: LogMultiplexer) -> None:
    before, after, put_back = prepare(services)
    logs.say(
        "up", f"Postgres {services.database_from}, Redis {services.redis_from}, tables {before} -> {after}"
    )
    for line in put_back:
        logs.say("up", line)


def _flower_port() -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as Flower itself binds
        try:
            probe.bind((LOOPBACK, _FLOWER_PORT))
        except OSError:
            return free_port()
    return _FLOWER_PORT


def _announcement(services: Services, flower_port: int | None) -> RunFile:
    return RunFile(
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


def _follow_services(services: Services, logs: LogMultiplexer) -> None:
    for name, folder in _started_here(services).items():
        logs.tail(name, folder / "log")


@contextmanager
def _running(
    services: Services, logs: LogMultiplexer, stopping: GracefulStop, options: Sequence[str], port: int | None
) -> Iterator[list[SupervisedProcess]]:
    """The worker and Flower for the length of the block; the worker is the first to be stopped."""
    processes: list[SupervisedProcess] = []
    try:
        stopping.check()
        processes.append(
            SupervisedProcess("worker", lambda: _worker(services, logs, options), stop_s=STOP_WORKER_S)
        )
        if port:
            processes.append(
                SupervisedProcess("flower", lambda: _flower(services, logs, port), stop_s=STOP_OTHER_S)
            )
        yield processes
    finally:
        if processes:
            logs.say("up", "stopping; images in hand finish or are given back (Ctrl-C again: at once)")
        for process in processes:
            process.stop(stopping)


def _worker(services: Services, logs: LogMultiplexer, options: Sequence[str]) -> ChildProcess:
    more = {"VETLINE_LOG_STYLE": "console"} if sys.stderr.isatty() else {}
    # A single machine's own folder may be read, unless it was said what may; elsewhere file: stays off.
    if not FetchSettings().file_roots:
        more["VETLINE_FETCH_FILE_ROOTS"] = file_root(Path.cwd())
    child = start(vetline("worker", *options), environment(services, **more))
    logs.follow("worker", child.output)
    return child


def _flower(services: Services, logs: LogMultiplexer, port: int) -> ChildProcess:
    """On loopback, read-only and behind a password: it shows images."""
    password_file = ServiceSettings().data_dir / "flower-password"
    env = environment(services, FLOWER_BASIC_AUTH=f"vetline:{secret_in(password_file)}")
    child = start(vetline("flower", f"--address={LOOPBACK}", f"--port={port}"), env)
    logs.follow("flower", child.output)
    logs.say("up", f"Flower: http://{LOOPBACK}:{port}/ (user vetline, password in {password_file})")
    return child


def _watch(
    services: Services, processes: Sequence[SupervisedProcess], logs: LogMultiplexer, stopping: GracefulStop
) -> None:
    """Until something cannot go on: raises what SupervisedProcess.look raises, or ServiceMissing when a server ended."""
    kept = _started_here(services)
    while True:
        stopping.check()
        for process in processes:
            if happened := process.look():
                logs.say(process.name, happened)
        for name, folder in kept.items():
            if not is_taken(folder / "kept"):
                raise ServiceMissing(f"{name} ended; see {folder / 'log'}")
        time.sleep(_LOOK_S)

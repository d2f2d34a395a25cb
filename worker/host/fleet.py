"""`vetline worker --gpus`: a worker with a runtime of its own for each GPU of a host, until SIGTERM or Ctrl-C."""

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from moderation.errors import BadSetting
from moderation.services.child import ChildProcess
from moderation.services.resolve import Services
from worker.gpu.devices import Gpu
from worker.health.probe_address import ProbeSettings
from worker.host.child_processes import (
    STOP_WORKER_S,
    SupervisedProcess,
    environment,
    start,
    stop_all,
    vetline,
)
from worker.host.graceful_stop import GracefulStop, StopRequested
from worker.host.log_multiplexer import LogMultiplexer
from worker.judges.factory import keeps_runtime
from worker.settings import WorkerSettings

_LOOK_S = 0.2
# A worker whose runtime cannot be had ends after some minutes. Its GPU may be mended meanwhile, and the others work on:
# so it is started again for as long as we run, at most a minute apart.
_RESTARTS_WITHIN_S = 1800.0


def run_fleet(services: Services, gpus: Sequence[Gpu], settings: WorkerSettings) -> int:
    """Keep a worker running on each of these GPUs. Returns the exit code.

    Raises Misuse where a worker says that its settings are wrong, and BadSetting for a judge that needs no GPU here.
    """
    if not keeps_runtime(settings):
        raise BadSetting(
            "--gpus is for workers that start SGLang; leave out --sglang-url and --judge open-nsfw"
        )
    logs = LogMultiplexer(sys.stderr, [_name(gpu) for gpu in gpus], heads=sys.stderr.isatty())
    with GracefulStop() as stopping:
        try:
            with ExitStack() as held:
                held.callback(logs.stop)
                _watch(held.enter_context(_running(services, gpus, settings, logs, stopping)), logs, stopping)
        except StopRequested:
            pass
        return stopping.code


@contextmanager
def _running(
    services: Services,
    gpus: Sequence[Gpu],
    settings: WorkerSettings,
    logs: LogMultiplexer,
    stopping: GracefulStop,
) -> Iterator[list[SupervisedProcess]]:
    """A worker on each GPU for the length of the block; then all are told to stop at once, and none is left."""
    processes: list[SupervisedProcess] = []
    try:
        for place, gpu in enumerate(gpus):
            stopping.check()
            processes.append(_process(services, gpu, place, settings, logs))
        yield processes
    finally:
        stop_all(processes, stopping)


def _process(
    services: Services, gpu: Gpu, place: int, settings: WorkerSettings, logs: LogMultiplexer
) -> SupervisedProcess:
    name, env = _name(gpu), environment(services, **gpu.pin, **_own_settings(gpu, place, settings))

    def launch() -> ChildProcess:
        child = start(vetline("worker"), env)
        logs.follow(name, child.output)
        return child

    return SupervisedProcess(name, launch, stop_s=STOP_WORKER_S, most_ends=None, within_s=_RESTARTS_WITHIN_S)


def _own_settings(gpu: Gpu, place: int, settings: WorkerSettings) -> dict[str, str]:
    """What was said on our command line, and a name and a port for each."""
    own: dict[str, str] = {"VETLINE_WORKER_JUDGE": settings.judge}
    if settings.concurrency is not None:
        own["VETLINE_WORKER_CONCURRENCY"] = str(settings.concurrency)
    if settings.name:
        own["VETLINE_WORKER_NAME"] = f"{settings.name}-{_name(gpu)}"
    if (first := ProbeSettings().port) is not None:
        own["VETLINE_PROBE_PORT"] = str(first + place)
    return own


def _name(gpu: Gpu) -> str:
    return f"gpu{gpu.index}"


def _watch(processes: Sequence[SupervisedProcess], logs: LogMultiplexer, stopping: GracefulStop) -> None:
    """Until somebody asks to stop, or SupervisedProcess.look raises."""
    while True:
        stopping.check()
        for process in processes:
            if happened := process.look():
                logs.say(process.name, f"the worker {happened}")
        time.sleep(_LOOK_S)

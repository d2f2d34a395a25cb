"""`vetline doctor`: whether this machine and its settings are fit to judge images, a line for each thing."""

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict
from typing import Any

from redis.backoff import NoBackoff
from redis.retry import Retry

from moderation.broker import connect, reaching_redis, read_broker
from moderation.cli.output import print_json, say
from moderation.doorbell import Doorbell
from moderation.errors import BrokerRefused, VetlineError
from moderation.plain_queue import PlainQueue
from moderation.services.resolve import Services, resolve
from moderation.services.run_file import read_run_file
from moderation.settings import QueueSettings, ServiceSettings
from worker.doctor import machine, redis
from worker.doctor.check import Check, CheckState, release
from worker.doctor.gpu import gpu_host, only_gpus
from worker.doctor.postgres import postgres
from worker.judges.factory import keeps_runtime, make_judge
from worker.runtime.preflight import preflight
from worker.runtime.settings import runtime_settings
from worker.settings import WorkerSettings

_OLDEST_REDIS = (6, 2)  # what kombu 5.7 needs


def doctor(*, worker_only: bool = False, as_json: bool = False) -> int:
    """Look at everything, say it on stdout, and return the exit code: 0, or 1 where there is a problem.

    Starts the embedded services where none are configured, for as long as it looks: that is the test of them.
    worker_only: cheap; only whether the services answer and a worker swept lately, and it is a problem if not.
    """
    checks = list(_services(worker_needed=True) if worker_only else examine())
    if as_json:
        print_json([asdict(check) for check in checks])
    else:
        width = max(len(check.name) for check in checks)
        for check in checks:
            advice = f" ({check.advice})" if check.advice else ""
            say(f"{check.state.value:<8} {check.name:<{width}}  {check.says}{advice}")
    return 1 if any(check.state is CheckState.PROBLEM for check in checks) else 0


def examine() -> Iterator[Check]:
    """Each check in turn; one that fails in an expected way is a finding, not an error."""
    yield Check("python", CheckState.OK, sys.version.split()[0])
    yield machine.pillow()
    yield from machine.image_types()
    yield from machine.packages()
    yield from _services(worker_needed=False)
    yield from _said_by("judge", _judge)
    yield from _said_by("gpu", _gpu)
    yield machine.sources()
    yield machine.disk()
    yield machine.open_files()
    if running := read_run_file(ServiceSettings().data_dir):
        yield Check(
            "up", CheckState.OK, f"running with process number {running.pid}, Flower at {running.flower_url}"
        )


def _services(*, worker_needed: bool) -> Iterator[Check]:
    with ExitStack() as held:
        try:
            services = held.enter_context(resolve(need_redis=True))
        except VetlineError as exc:
            yield Check("services", CheckState.PROBLEM, str(exc))
        else:
            yield from _said_by("postgres", lambda: postgres(services, worker_needed=worker_needed))
            yield from _said_by("redis", lambda: _redis(services))


def _said_by(name: str, look: Callable[[], Iterator[Check]]) -> Iterator[Check]:
    try:
        yield from look()
    except VetlineError as exc:
        yield Check(name, CheckState.PROBLEM, str(exc))


def _redis(services: Services) -> Iterator[Check]:
    doorbell = Doorbell(services.redis_url)
    try:
        waiting = doorbell.depth()
    finally:
        doorbell.close()
    broker = read_broker(services.redis_url)
    here = f"{services.redis_from}, {waiting} messages wait"
    try:
        with connect(broker, retry=Retry(NoBackoff(), 1)) as client, reaching_redis(broker):
            info: dict[str, Any] = client.info()
    except BrokerRefused as exc:
        yield Check("redis", CheckState.OK, here)
        yield Check("redis version", CheckState.NOTE, str(exc), "a user with INFO is told more")
        return
    installed = str(info["redis_version"])
    yield Check("redis", CheckState.OK, f"{here}, {installed}")
    if release(installed) < _OLDEST_REDIS:
        yield Check("redis version", CheckState.PROBLEM, f"{installed} is too old", "need 6.2")
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        # The ledger rings again for what is thrown away, so this costs time and loses nothing.
        yield Check(
            "redis memory",
            CheckState.NOTE,
            f"maxmemory-policy is {policy}: it may drop messages",
            "noeviction",
        )
    yield from redis.takes_writes(info)
    yield redis.persistence(info)
    yield from _plain(services)


def _plain(services: Services) -> Iterator[Check]:
    """What waits in the lists of plain Celery clients, and what lies where nobody reads."""
    settings = QueueSettings()
    queue = PlainQueue(services.redis_url, settings)
    try:
        depths = queue.depths()
    except BrokerRefused:
        return  # a user of rows alone
    finally:
        queue.close()
    yield from redis.plain_messages(depths, settings.plain_names)


def _judge() -> Iterator[Check]:
    settings = WorkerSettings()
    if keeps_runtime(settings):
        preflight(settings)
        yield Check(
            "judge", CheckState.OK, f"a worker would start SGLang here for {runtime_settings().model}"
        )
        return
    judge = make_judge(settings)
    try:
        judge.check()
    finally:
        judge.close()
    yield Check("judge", CheckState.OK, f"{judge.name} is ready")


def _gpu() -> Iterator[Check]:
    if keeps_runtime(WorkerSettings()):
        yield from gpu_host(runtime_settings())
    else:
        yield only_gpus()

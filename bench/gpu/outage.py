"""A server that is killed while a worker judges: nothing is lost, nothing is charged, work goes on by itself.

One `vetline worker` with an SGLang of its own (worker/runtime), fed through Redis and Postgres. Once a share of the images
has verdicts, the server gets a `kill -9`; the worker gives back what was in hand, starts another, and finishes. Exit
code 0 only if every image has exactly one verdict, no attempt but those that gave them is charged, and no process is left.

usage: python -m bench.gpu.outage --checkpoint DIR [--images 200] [--in-flight 32] [--scheduler] --out FILE.json

The checkpoint must answer in verdicts: `python -m bench.gpu.checkpoint DIR TOKENIZER --speaks`. What the worker's
environment says (VETLINE_RUNTIME_*) holds, such as another device or command.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, text

from bench.gpu.pictures import jpegs
from bench.gpu.spoken import TOKENS
from bench.machine import RUNTIME_PACKAGES, describe_machine
from moderation.ledger.counters import counts
from moderation.ledger.engine import open_ledger
from moderation.services.child import ChildProcess
from moderation.services.resolve import Services, resolve
from moderation.settings import ServiceSettings
from worker.host.child_processes import environment, prepare, start, vetline

BATCH = "outage"
START_S, FINISH_S = 420.0, 420.0
_SEEN = text("""
    SELECT count(*) AS images, count(v.assessment_id) AS verdicts, count(DISTINCT v.assessment_id) AS distinct_verdicts,
        sum(a.charged) - count(v.assessment_id) AS charged_beyond_the_verdicts,
        max(a.crashes) AS crashes_of_one, count(*) FILTER (WHERE a.crashes > 0) AS in_hand_at_the_kill,
        max(a.attempt) AS most_attempts
    FROM assessment a LEFT JOIN verdict v ON v.assessment_id = a.id WHERE a.batch = :batch
""")
_OUTCOMES = text("""
    SELECT t.outcome, count(*) AS n FROM attempt t JOIN assessment a ON a.id = t.assessment_id
    WHERE a.batch = :batch GROUP BY t.outcome
""")
_NEXT = text("""
    SELECT extract(epoch FROM min(v.recorded_at) - to_timestamp(:at))::float FROM verdict v
    WHERE v.recorded_at > to_timestamp(:at) + interval '3 seconds'
""")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--in-flight", type=int, default=32)
    parser.add_argument("--kill-after", type=float, default=0.35, help="the share of images with verdicts")
    parser.add_argument(
        "--scheduler", action="store_true", help="kill the scheduler and not the HTTP process"
    )
    parser.add_argument("--folder", type=Path, default=Path("/tmp/vetline-outage"))
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    found = run(args)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    sys.stdout.write(json.dumps({k: v for k, v in found.items() if k != "machine"}, indent=1) + "\n")
    sys.exit(0 if found["good"] else 1)


def run(args: argparse.Namespace) -> dict[str, Any]:
    folder = args.folder / "images"
    folder.mkdir(exist_ok=True)
    for number, image in enumerate(jpegs(args.images, [(640, 480)], first_seed=77_000_000)):
        (folder / f"{number:05}.jpg").write_bytes(image)
    with ExitStack() as held:
        settings = ServiceSettings().model_copy(update={"data_dir": args.folder / "services"})
        services = held.enter_context(resolve(need_redis=True, settings=settings))
        prepare(services)
        engine = open_ledger(services.database_url)
        held.callback(engine.dispose)
        worker = Worker(args, services)
        held.callback(worker.stop)
        ready_s = worker.wait_for("runtime_ready", times=1, timeout_s=START_S)
        enqueue = vetline("enqueue", str(folder), "--batch", BATCH)
        subprocess.run(enqueue, env=environment(services), check=True, capture_output=True)
        wait(engine, lambda now: now.get("done", 0) >= args.images * args.kill_after, FINISH_S)
        killed_at, at_kill = time.time(), counts(engine, batch=BATCH)
        worker.kill_server(scheduler=args.scheduler)
        wait(engine, lambda now: not now.keys() - {"done", "failed", "cancelled"}, FINISH_S)
        ended_at = time.time()
        again_s = worker.wait_for("runtime_ready", times=2, timeout_s=1)
        stopped = worker.stop()
        found = _found(engine, args.images, killed_at)
    left = worker.left()
    good = found.pop("good") and not left and stopped == 0
    return {
        "what": "kill -9 of the server while a worker judges", "machine": describe_machine(RUNTIME_PACKAGES),
        "killed": "scheduler" if args.scheduler else "HTTP process", "in_flight": args.in_flight,
        "start_to_ready_s": round(ready_s, 1), "at_the_kill": at_kill, "second_start_to_ready_s": round(again_s, 1),
        "kill_to_last_verdict_s": round(ended_at - killed_at, 1), **found, "worker_exit_code": stopped,
        "processes_left": left, "good": good,
    }  # fmt: skip


class Worker:
    """`vetline worker` and what it says in its log."""

    def __init__(self, args: argparse.Namespace, services: Services) -> None:
        self._log: Path = args.folder / "worker.log"
        self._log.unlink(missing_ok=True)
        own = {
            "VETLINE_RUNTIME_MODEL": str(args.checkpoint.resolve()), "VETLINE_RUNTIME_OFFLINE": "1",
            "VETLINE_FETCH_FILE_ROOTS": str(args.folder.resolve()), "VETLINE_LOG_STYLE": "json",
            "VETLINE_SGLANG_PROFILE": "greedy", "VETLINE_SGLANG_MAX_NEW_TOKENS": str(TOKENS),
        }  # fmt: skip
        command = vetline("worker", "--concurrency", str(args.in_flight))
        self._child: ChildProcess = start(command, environment(services, **own), log=self._log)
        self._servers: set[int] = set()

    def said(self, event: str) -> list[dict[str, Any]]:
        """Lines of this event so far."""
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()
        found = [json.loads(line) for line in lines if f'"{event}"' in line and line.startswith("{")]
        return [line for line in found if line.get("event") == event]

    def wait_for(self, event: str, *, times: int, timeout_s: float) -> float:
        """The elapsed_s of the last of so many lines. Raises RuntimeError with the log's end."""
        deadline = time.monotonic() + timeout_s
        while len(lines := self.said(event)) < times:
            if time.monotonic() > deadline or not self._child.alive():
                raise RuntimeError(f"no {event} within {timeout_s:.0f} s:\n{self._log.read_text()[-4000:]}")
            time.sleep(0.2)
        self._servers |= {line["pid"] for line in self.said("runtime_starting")}
        return float(lines[-1].get("elapsed_s", 0.0))

    def kill_server(self, *, scheduler: bool) -> None:
        """SIGKILL, without a word to the worker."""
        import psutil

        root = psutil.Process(self.said("runtime_ready")[-1]["pid"])
        if not scheduler:
            os.kill(root.pid, signal.SIGKILL)
            return
        for process in root.children(recursive=True):
            if any("scheduler" in word for word in (process.name(), *process.cmdline()[:1])):
                os.kill(process.pid, signal.SIGKILL)
                return
        raise RuntimeError("the server has no process whose name says scheduler")

    def stop(self) -> int | None:
        """The exit code."""
        self._child.stop([signal.SIGTERM, signal.SIGKILL], patience_s=60)
        return self._child.exit_code

    def left(self) -> list[int]:
        """Processes of the servers' groups that still run."""
        import psutil

        running = {p.pid: os.getpgid(p.pid) for p in psutil.process_iter() if psutil.pid_exists(p.pid)}
        return sorted(pid for pid, group in running.items() if group in self._servers)


def wait(engine: Engine, done: Any, timeout_s: float) -> None:
    """Until `done` holds of the counts by state. Raises RuntimeError."""
    deadline = time.monotonic() + timeout_s
    while not (now := counts(engine, batch=BATCH)) or not done(now):
        if time.monotonic() > deadline:
            raise RuntimeError(f"after {timeout_s:.0f} s: {now}")
        time.sleep(0.05)


def _found(engine: Engine, images: int, killed_at: float) -> dict[str, Any]:
    with engine.connect() as connection:
        seen = dict(connection.execute(_SEEN, {"batch": BATCH}).mappings().one())
        outcomes = {row.outcome: row.n for row in connection.execute(_OUTCOMES, {"batch": BATCH})}
        resumed_s = connection.execute(_NEXT, {"at": killed_at}).scalar()
    lost = images - seen["distinct_verdicts"]
    doubled = seen["verdicts"] - seen["distinct_verdicts"]
    good = lost == doubled == seen["charged_beyond_the_verdicts"] == 0 and seen["images"] == images
    return {
        "images": images, "lost": lost, "doubled": doubled, **{name: int(seen[name]) for name in seen if name != "images"},
        "attempts_by_outcome": outcomes, "kill_to_next_verdict_s": resumed_s and round(resumed_s, 1), "good": good,
    }  # fmt: skip


if __name__ == "__main__":
    main()

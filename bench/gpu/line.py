"""What the queue costs: producer, Postgres, Redis, worker and runtime, against the bare runtime, in one run.

Each round sends as many 640x480 images, never seen before, with the same bodies and the same number in flight: "bare" by
the load generator, "line" by `vetline enqueue` and one `vetline worker` whose verdicts end in Postgres. The checkpoint
answers every image with a valid verdict of 100 tokens (spoken.py), so that the line ends in verdicts. Both rates count
filling and emptying the line. The queue's share is what the line is slower than the bare rounds beside it.

usage: python -m bench.gpu.line --tokenizer DIR [--rounds bare,line,bare] [--in-flight 256] [--images 1536] ...

--url takes a server that runs already, such as the scripted one of tests/support (then its processor time is not known).
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, text

from bench.gpu import load, profile
from bench.gpu.cpu_use import Meter, own_s, places, tree_s
from bench.gpu.gpu_use import watched
from bench.gpu.pictures import jpegs
from bench.gpu.servers import Fleet
from bench.gpu.set_ups import OURS
from bench.gpu.spoken import TOKENS
from bench.machine import RUNTIME_PACKAGES, describe_machine
from moderation.ledger.counters import counts
from moderation.ledger.engine import open_ledger
from moderation.services.child import ChildProcess
from moderation.services.resolve import Services, resolve
from moderation.settings import ServiceSettings
from worker.host.child_processes import environment, prepare, start, vetline
from worker.judges.prompts import END_TOKEN_ID

SIZE = (640, 480)
START_S = 600.0
STALL_S = 120.0  # without a new verdict for so long, a round is over
WARM_IMAGES = 64
ROUNDS = ("bare", "bare+p", "line", "line+p", "line+question", "line+profile")
LOGPROBS = {"return_logprob": True, "token_ids_logprob": load.RATING}

_SPAN = text("""
    SELECT extract(epoch FROM max(v.recorded_at) - min(a.created_at))::float AS wall_s, count(*) AS verdicts,
        count(DISTINCT v.pixels_sha256) AS pictures, max(v.attempt) AS attempts
    FROM assessment a JOIN verdict v ON v.assessment_id = a.id WHERE a.batch = :batch
""")
_STEPS = text("""
    SELECT step.key, percentile_cont(0.5) WITHIN GROUP (ORDER BY step.value::float) AS median_ms
    FROM assessment a JOIN verdict v ON v.assessment_id = a.id, jsonb_each_text(v.timings_ms::jsonb) step
    WHERE a.batch = :batch GROUP BY step.key
""")


@dataclass(frozen=True, slots=True)
class Round:
    """kind: bare or line. p_unsafe: as VETLINE_SGLANG_P_UNSAFE has it: off, generation or question.

    profiled: py-spy looks at the worker meanwhile, which slows it, so that the round does not count.
    """

    kind: str
    p_unsafe: str = "off"
    profiled: bool = False

    @classmethod
    def parse(cls, word: str) -> "Round":
        """Of "bare", "bare+p", "line", "line+p", "line+question" or "line+profile". Raises ValueError."""
        if word not in ROUNDS:
            raise ValueError(f"{word!r} is no round: write {', '.join(ROUNDS)}")
        kind, _, more = word.partition("+")
        return cls(kind, {"p": "generation", "question": "question"}.get(more, "off"), more == "profile")


@dataclass(slots=True)
class Depth:
    """How many requests the server held, looked at each second."""

    seen: list[int] = field(default_factory=list)

    @contextmanager
    def watched(self, url: str) -> Iterator[None]:
        over = threading.Event()
        thread = threading.Thread(target=self._look, args=(url, over))
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _look(self, url: str, over: threading.Event) -> None:
        import httpx

        while not over.wait(1):
            try:
                loads = httpx.get(f"{url}/v1/loads", timeout=10).json()["loads"]
            except (httpx.HTTPError, ValueError, KeyError):
                continue
            self.seen.append(sum(load["num_running_reqs"] + load["num_waiting_reqs"] for load in loads))

    @property
    def median(self) -> int | None:
        return sorted(self.seen)[len(self.seen) // 2] if self.seen else None


class Bench:
    """A server, the two services, and the rounds."""

    def __init__(self, args: argparse.Namespace, held: ExitStack) -> None:
        self._args = args
        self._held = held
        self._folder: Path = args.folder
        self._began = time.monotonic()
        self._seed = 0
        self.results: dict[str, Any] = {
            "what": "the whole line against the bare runtime",
            "machine": describe_machine((*RUNTIME_PACKAGES, "celery", "redis", "psycopg", "sqlalchemy")),
            "size": f"{SIZE[0]}x{SIZE[1]}", "output_tokens": TOKENS, "in_flight": args.in_flight, "rounds": [],
        }  # fmt: skip

    def say(self, said: str) -> None:
        sys.stdout.write(f"[{time.monotonic() - self._began:6.1f} s] {said}\n")
        sys.stdout.flush()

    def run(self) -> None:
        fleet = None if self._args.url else self._start_server()
        drawn = [jpegs(self._args.images, [SIZE], first_seed=self._seeds()) for _ in self._args.rounds]
        warm = jpegs(WARM_IMAGES, [SIZE], first_seed=self._seeds())
        self.say("images are drawn")
        services = self._start_services()
        if fleet is not None:
            self.say(f"the server answers after {fleet.wait(START_S):.0f} s")
        url = fleet.urls[0] if fleet is not None else str(self._args.url)
        load.drive([url], warm, self._body(url, p_unsafe="off"), in_flight=16, keyed=True)
        if fleet is not None:
            fleet.settle()
        for number, (each, images) in enumerate(zip(self._args.rounds, drawn, strict=True)):
            seen = (self._bare if each.kind == "bare" else self._line)(
                number, each, images, url, fleet, services
            )
            self.say(json.dumps({**asdict(each), **seen, "host_profile": None}))
            self.results["rounds"].append({**asdict(each), **seen})
            self._save()

    def _seeds(self) -> int:
        self._seed += 1_000_000
        return self._seed

    def _start_server(self) -> Fleet:
        checkpoint = self._args.checkpoint or self._folder / "speaking"
        if not (checkpoint / "model.safetensors").exists():
            made = [
                sys.executable,
                "-m",
                "bench.gpu.checkpoint",
                str(checkpoint),
                str(self._args.tokenizer),
                "--speaks",
            ]
            subprocess.run(made, check=True)
        self.say(f"the checkpoint is {checkpoint}")
        fleet = Fleet(OURS, checkpoint, self._folder, common=self._args.flag)
        self._held.callback(fleet.stop)
        return fleet

    def _start_services(self) -> Services:
        settings = ServiceSettings().model_copy(update={"data_dir": self._folder / "services"})
        services = self._held.enter_context(resolve(need_redis=True, settings=settings))
        prepare(services)
        self.say("Postgres and Redis are there")
        return services

    # --- a round

    def _body(self, url: str, *, p_unsafe: str) -> dict[str, Any]:
        """What the judge sends, but for id, image and its keys."""
        sampling = {"temperature": 0.0, "max_new_tokens": TOKENS, "stop_token_ids": [END_TOKEN_ID]}
        plain = {"text": load.prompt(), "sampling_params": sampling}
        return load.as_ids(url, plain) | (LOGPROBS if p_unsafe == "generation" else {})

    def _bare(
        self, number: int, each: Round, images: list[bytes], url: str, fleet: Fleet | None, services: Services
    ) -> dict[str, Any]:
        meter = Meter(self._parties(fleet) | {"load generator": partial(own_s, os.getpid())})
        depth = Depth()
        with watched() as gpu, depth.watched(url):
            seen = load.drive(
                [url],
                images,
                self._body(url, p_unsafe=each.p_unsafe),
                in_flight=self._args.in_flight,
                keyed=True,
            )
        return {
            "images": seen.images, "failures": len(seen.failures), "images_per_s": seen.rate, "wall_s": seen.wall_s,
            "p50_s": seen.percentile(0.5), "p95_s": seen.percentile(0.95), "output_tokens": seen.output_tokens / seen.images,
            "at_the_server": depth.median, **_gpu(gpu), "cpu_ms_per_image": meter.ms_each(seen.images),
        }  # fmt: skip

    def _line(
        self, number: int, each: Round, images: list[bytes], url: str, fleet: Fleet | None, services: Services
    ) -> dict[str, Any]:
        batch = f"round-{number}"
        folder, warm = self._folder / batch, self._folder / f"{batch}-warm"
        _write(images, folder)
        _write(jpegs(WARM_IMAGES, [SIZE], first_seed=self._seeds()), warm)
        engine = open_ledger(services.database_url)
        worker = self._start_worker(batch, each, url, services)
        try:
            self._judged(engine, services, warm)
            meter = Meter(self._parties(fleet) | _worker_parties(worker.pid))
            depth, sampled = Depth(), _Sampled(worker.pid, wanted=each.profiled)
            with watched() as gpu, depth.watched(url), sampled:
                producer_s = self._judged(engine, services, folder)
            cpu = meter.ms_each(len(images)) | {"producer": round(1000 * producer_s / len(images), 3)}
            found = self._found(engine, batch)
        finally:
            worker.stop([signal.SIGTERM, signal.SIGKILL], patience_s=40)
            engine.dispose()
        return {
            **found, "at_the_server": depth.median, **_gpu(gpu), "cpu_ms_per_image": cpu, "host_profile": sampled.found,
        }  # fmt: skip

    def _start_worker(self, batch: str, each: Round, url: str, services: Services) -> ChildProcess:
        settings = {
            "VETLINE_FETCH_FILE_ROOTS": str(self._folder.resolve()), "VETLINE_SGLANG_PROFILE": "greedy",
            "VETLINE_SGLANG_MAX_NEW_TOKENS": str(TOKENS), "VETLINE_LOG_STYLE": "json", "VETLINE_WORKER_NAME": batch,
            "VETLINE_SGLANG_P_UNSAFE": each.p_unsafe, "VETLINE_WORKER_IN_FLIGHT_START": str(self._args.in_flight),
            "VETLINE_WORKER_IN_FLIGHT_MOST": str(self._args.in_flight),
        }  # fmt: skip
        words = ("worker", "--sglang-url", url)
        log = self._folder / f"{batch}-worker.log"
        child = start(vetline(*words), environment(services, **settings), log=log)
        child.wait_until(lambda: b"worker_started" in log.read_bytes(), timeout_s=60)
        return child

    def _judged(self, engine: Engine, services: Services, folder: Path) -> float:
        """Enqueue a folder and wait for its last verdict. Returns the producer's processor seconds.

        Raises RuntimeError where verdicts stop coming.
        """
        before = os.times()
        command = vetline("enqueue", str(folder), "--batch", folder.name)
        subprocess.run(command, env=environment(services), check=True, capture_output=True)
        after = os.times()
        done, at = -1, time.monotonic()
        while (now := counts(engine, batch=folder.name)).keys() - {"done", "failed"} or not now:
            if now.get("done", 0) > done:
                done, at = now.get("done", 0), time.monotonic()
            if time.monotonic() - at > STALL_S:
                raise RuntimeError(f"no verdict for {STALL_S:.0f} s: {now}")
            time.sleep(0.2)
        return after.children_user + after.children_system - before.children_user - before.children_system

    def _found(self, engine: Engine, batch: str) -> dict[str, Any]:
        with engine.connect() as connection:
            row = connection.execute(_SPAN, {"batch": batch}).mappings().one()
            steps = {name: round(ms, 1) for name, ms in connection.execute(_STEPS, {"batch": batch})}
        ended = counts(engine, batch=batch)
        return {
            "images": row["verdicts"], "pictures": row["pictures"], "failures": ended.get("failed", 0),
            "attempts": row["attempts"], "images_per_s": row["verdicts"] / row["wall_s"], "wall_s": row["wall_s"],
            "median_step_ms": steps,
        }  # fmt: skip

    def _parties(self, fleet: Fleet | None) -> dict[str, Callable[[], float]]:
        found: dict[str, Callable[[], float]] = {
            name: partial(tree_s, _kept_in(self._folder / "services" / name))
            for name in ("postgres", "redis")
        }
        if fleet is not None:
            found |= {f"sglang {role}": partial(_role_s, fleet, role) for role in fleet.cpu_s()}
        return found

    def _save(self) -> None:
        self.results["queue_share"] = shares(self.results["rounds"])
        self._args.out.parent.mkdir(parents=True, exist_ok=True)
        self._args.out.write_text(json.dumps(self.results, indent=1) + "\n", encoding="utf-8")


class _Sampled:
    """py-spy on the worker for some seconds in the middle of a round, where that is wanted and there is one."""

    def __init__(self, pid: int, *, wanted: bool) -> None:
        self.found: dict[str, Any] = {}
        self._thread = threading.Thread(target=self._sample, args=(pid,)) if wanted else None

    def _sample(self, pid: int) -> None:
        time.sleep(6)
        self.found = profile.sampled({"worker": pid})

    def __enter__(self) -> None:
        if self._thread is not None:
            self._thread.start()

    def __exit__(self, *error: object) -> None:
        if self._thread is not None:
            self._thread.join()


def _worker_parties(pid: int) -> dict[str, Callable[[], float]]:
    return {"worker": partial(own_s, pid), "worker's decoders": lambda: tree_s(pid) - own_s(pid)}


def _kept_in(folder: Path) -> int:
    """The server that runs in a folder or below it: neither is our child. Raises StopIteration where there is none."""
    return next(pid for pid, place in places() if place.is_relative_to(folder.resolve()))


def _role_s(fleet: Fleet, role: str) -> float:
    return fleet.cpu_s().get(role, 0.0)


def _gpu(use: Any) -> dict[str, Any]:
    return {"gpu_busy_percent": use.busy_percent, "power_w": use.power_w, "clock_mhz": use.clock_mhz}


def _write(images: Sequence[bytes], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(images):
        (folder / f"{number:05}.jpg").write_bytes(image)


def shares(rounds: Sequence[dict[str, Any]]) -> dict[str, float]:
    """How much slower the line is than the bare rounds of the same kind, as a share of those."""
    found = {}
    for p_unsafe in ("off", "generation"):
        rates = {
            kind: [
                r["images_per_s"]
                for r in rounds
                if (r["kind"], r["p_unsafe"], r["profiled"]) == (kind, p_unsafe, False)
            ]
            for kind in ("bare", "line")
        }
        if all(rates.values()):
            bare, line = (sum(rates[kind]) / len(rates[kind]) for kind in ("bare", "line"))
            found[f"P(unsafe) {p_unsafe}"] = round(1 - line / bare, 4)
    return found


def _rounds(words: str) -> list[Round]:
    return [Round.parse(word) for word in words.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--tokenizer", type=Path, help="a folder with tokenizer.json, for a checkpoint that speaks"
    )
    parser.add_argument("--checkpoint", type=Path, help="one that exists")
    parser.add_argument("--url", help="a server that runs already")
    parser.add_argument(
        "--rounds",
        type=_rounds,
        default=_rounds("bare,line,bare"),
        help=", ".join(ROUNDS),
    )
    parser.add_argument("--in-flight", type=int, default=256)
    parser.add_argument("--images", type=int, default=1536, help="of each round")
    parser.add_argument("--flag", action="append", default=[], help="a word for the server's command line")
    parser.add_argument("--folder", type=Path, default=Path("/tmp/vetline-line"))
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as held:
        bench = Bench(args, held)
        bench.run()
    bench.say(f"the queue's share: {bench.results['queue_share']}")


if __name__ == "__main__":
    main()

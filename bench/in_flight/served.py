"""The limiter against each shape in real time: the scripted SGLang over HTTP, our judge, and a thread for each image.

usage: python -m bench.in_flight.served --out FILE.json [--seconds 120] [--fixed-seconds 30] [--silent]

The shapes are those of shapes.py at a quarter of the number in flight and half of the rate, so that two CPU cores can serve
and ask. For each: the rate at fixed numbers, and from a cold start the rate after the first minute with the number that
is found. --silent: the runtime says nothing of itself.
"""

import argparse
import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

import structlog

from bench.in_flight.shapes import MOST, SHAPES
from bench.machine import describe_machine
from moderation.errors import VetlineError
from moderation.policy import builtin_policies
from tests.support.judging import view
from tests.support.sglang_curve import Curve
from tests.support.sglang_server import ScriptedServer
from worker.concurrency.limiter import ConcurrencyLimiter
from worker.judges.settings import SglangSettings
from worker.judges.sglang import SglangJudge
from worker.processing.components import make_limiter
from worker.settings import WorkerSettings

SCALE_IN_FLIGHT, SCALE_RATE = 4, 2
FOUND_S, SETTLE_S = 60.0, 8.0


def scaled(curve: Curve) -> Curve:
    points = {max(1, round(n / SCALE_IN_FLIGHT)): rate / SCALE_RATE for n, rate in curve.points}
    return curve.model_copy(update={"points": tuple(sorted(points.items()))})


class Load:
    """Threads that always have an image for each slot."""

    def __init__(self, judge: SglangJudge, limiter: ConcurrencyLimiter, *, threads: int) -> None:
        self._judge, self._limiter = judge, limiter
        self.answered_at: list[float] = []
        self.held: list[tuple[float, int]] = []
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(threads)]

    def run(self, seconds: float) -> None:
        began = time.monotonic()
        for thread in self._threads:
            thread.start()
        while (now := time.monotonic() - began) < seconds:
            if not self.held or self.held[-1][1] != self._limiter.limit:
                self.held.append((round(now, 1), self._limiter.limit))
            time.sleep(0.1)
        self._over.set()
        for thread in self._threads:
            thread.join()
        self.answered_at = sorted(at - began for at in self.answered_at)

    def rate(self, since_s: float, until_s: float) -> float:
        return sum(since_s <= at < until_s for at in self.answered_at) / (until_s - since_s)

    def _ask(self) -> None:
        policy = builtin_policies()[0]
        while not self._over.is_set():
            try:
                with self._limiter.slot(timeout_s=240):
                    self._judge.judge(view(), policy, timeout_s=120)
            except VetlineError as error:
                sys.stderr.write(f"{error}\n")
                continue
            self.answered_at.append(time.monotonic())


def loaded(curve: Curve, seconds: float, *, fixed: int | None, says: int | None) -> Load:
    script: dict[str, Any] = {"curve": curve.model_dump(), "rating_logits": True}
    script["server_info"] = {"max_running_requests": says} if says else {}
    most = MOST // SCALE_IN_FLIGHT
    settings = WorkerSettings(concurrency=fixed) if fixed else WorkerSettings(in_flight_most=most)
    with ScriptedServer(script) as server:
        judge = SglangJudge(SglangSettings(url=server.url, prompt_as="text"))
        try:
            judge.check()
            limiter = make_limiter(settings)
            limiter.expect(judge.runtime().at_once)
            load = Load(judge, limiter, threads=settings.threads)
            load.run(seconds)
            return load
        finally:
            judge.close()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--fixed-seconds", type=float, default=30)
    parser.add_argument("--shape", action="append", choices=sorted(SHAPES), help="all, where none is named")
    parser.add_argument("--silent", action="store_true")
    args = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    most = MOST // SCALE_IN_FLIGHT
    results: dict[str, Any] = {"machine": describe_machine(), "shapes": {}}
    for name in args.shape or SHAPES:
        curve = scaled(SHAPES[name])
        fixed = {}
        for number in (most // 8, most // 4, most // 2, 38, most):
            load = loaded(curve, args.fixed_seconds, fixed=number, says=None)
            fixed[number] = round(load.rate(SETTLE_S, args.fixed_seconds), 2)
        found = loaded(curve, args.seconds, fixed=None, says=None if args.silent else most)
        best = max(fixed.values())
        after = found.rate(FOUND_S, args.seconds)
        results["shapes"][name] = {
            "fixed": fixed, "best": best, "after_60_s": round(after, 2), "share": round(after / best, 4),
            "first_minute": round(found.rate(0, FOUND_S) / best, 4), "limits": found.held,
            "limit_at_60_s": [limit for at, limit in found.held if at <= FOUND_S][-1],
        }  # fmt: skip
        sys.stdout.write(f"{name}: {json.dumps(results['shapes'][name])}\n")
        sys.stdout.flush()
        args.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""The limiter against each shape in simulated time: what it finds, how soon, and whether it stays.

usage: python -m bench.in_flight.simulated [--seeds 20] [--minutes 5] [--at-once 256]

For each shape: the rate at the limits held from the 61st second on, against the best fixed number; how much of the first
minute's work was lost; the share of that time with a limit of at least 97 %. Medians, and the worst of all seeds.
"""

import argparse
import logging
import statistics
import sys
from collections import deque
from contextlib import AbstractContextManager
from dataclasses import dataclass

import structlog

from bench.in_flight.shapes import MOST, SHAPES
from tests.support.sglang_curve import Clockwork, Curve
from worker.concurrency.limiter import ConcurrencyLimiter
from worker.processing.components import make_limiter
from worker.settings import WorkerSettings

TICK_S = 0.02
FOUND_S = 60.0
GOOD = 0.97


@dataclass(frozen=True, slots=True)
class Run:
    """held: (seconds, limit) at each change. Shares are of the best fixed number's rate."""

    held: list[tuple[float, int]]
    at_60_s: float
    first_minute: float
    after: float
    good_share: float


class Simulation:
    """A worker that always has an image for each slot."""

    def __init__(self, curve: Curve, *, seed: int, at_once: int | None) -> None:
        self.now_s = 0.0
        self._clockwork = Clockwork(curve, seed=seed)
        self._asked: dict[int, AbstractContextManager[None]] = {}
        self._count = 0
        self.limiter = _limiter(self, at_once)

    def tick(self) -> int:
        """How many were answered."""
        while self.limiter.in_flight < self.limiter.limit:
            slot = self.limiter.slot(timeout_s=1)
            slot.__enter__()
            self._count += 1
            self._asked[self._count] = slot
            self._clockwork.enter(self._count)
        self.now_s += TICK_S
        done = self._clockwork.advance(TICK_S)
        for request in done:
            self._asked.pop(int(str(request))).__exit__(None, None, None)
        return len(done)


def _limiter(simulation: Simulation, at_once: int | None) -> ConcurrencyLimiter:
    limiter = make_limiter(WorkerSettings(in_flight_most=MOST), now=lambda: simulation.now_s)
    limiter.expect(at_once)
    return limiter


def run(curve: Curve, *, seed: int, minutes: float, at_once: int | None) -> Run:
    simulation = Simulation(curve, seed=seed, at_once=at_once)
    best = curve.best(MOST)
    held = [(0.0, simulation.limiter.limit)]
    shares: deque[float] = deque()
    answered_first = 0
    while simulation.now_s < minutes * 60:
        answered = simulation.tick()
        answered_first += answered if simulation.now_s <= FOUND_S else 0
        if simulation.limiter.limit != held[-1][1]:
            held.append((round(simulation.now_s, 1), simulation.limiter.limit))
        shares.append(curve.rate(simulation.limiter.limit) / best)
    ticks = list(shares)
    later = ticks[int(FOUND_S / TICK_S) :]
    return Run(
        held=held,
        at_60_s=ticks[int(FOUND_S / TICK_S) - 1],
        first_minute=answered_first / FOUND_S / best,
        after=statistics.fmean(later),
        good_share=sum(share >= GOOD for share in later) / len(later),
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--at-once", type=int, help="what the runtime says of itself; left out: nothing")
    parser.add_argument("--trace", action="store_true", help="the limits of the first seed")
    args = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    sys.stdout.write(
        "shape          | at 60 s median worst | first minute median worst | later median worst | of it >= 97 %\n"
    )
    for name, curve in SHAPES.items():
        runs = [run(curve, seed=s, minutes=args.minutes, at_once=args.at_once) for s in range(args.seeds)]
        columns = [
            _two([getattr(r, what) for r in runs])
            for what in ("at_60_s", "first_minute", "after", "good_share")
        ]
        sys.stdout.write(f"{name:14} | {' | '.join(columns)}\n")
        if args.trace:
            sys.stdout.write(f"    {runs[0].held}\n")


def _two(values: list[float]) -> str:
    return f"{statistics.median(values):6.1%} {min(values):6.1%}"


if __name__ == "__main__":
    main()

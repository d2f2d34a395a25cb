"""How fast a runtime is with how many in flight: a curve, and a clockwork that works through requests by it."""

import heapq
import random
from collections.abc import Hashable
from itertools import pairwise

from pydantic import BaseModel, ConfigDict, Field


class Curve(BaseModel):
    """points: (in flight, images/s), rising in the first; straight lines between them, flat after the last.

    noise: relative standard deviation of the speed, drawn anew each NOISE_S. batch_s: answers come out only so often.
    spread: how far the work of a single image is from the mean at most, relative.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    points: tuple[tuple[int, float], ...] = Field(min_length=1)
    noise: float = Field(default=0.0, ge=0)
    batch_s: float = Field(default=0.0, ge=0)
    spread: float = Field(default=0.15, ge=0, lt=1)

    def rate(self, in_flight: int) -> float:
        """Images per second with so many in flight."""
        first = self.points[0]
        if in_flight <= first[0]:
            return first[1] * in_flight / first[0]
        for (low, below), (high, above) in pairwise(self.points):
            if in_flight <= high:
                return below + (above - below) * (in_flight - low) / (high - low)
        return self.points[-1][1]

    def best(self, most: int) -> float:
        """The rate of the best fixed number up to `most`."""
        return max(self.rate(number) for number in range(1, most + 1))


NOISE_S = 0.5


class Clockwork:
    """Everything in flight shares the speed evenly. Time is told to it, real or not."""

    def __init__(self, curve: Curve, *, seed: int = 0) -> None:
        self._curve = curve
        self._draw = random.Random(seed)
        self._each = 0.0  # work done so far on each that was there all along
        self._ends: list[tuple[float, int, Hashable]] = []
        self._finished: list[Hashable] = []  # but their batch is not out yet
        self._speed, self._until_s, self._now_s, self._batch_at_s = 1.0, 0.0, 0.0, 0.0
        self._count = 0

    @property
    def in_flight(self) -> int:
        return len(self._ends) + len(self._finished)

    def enter(self, request: Hashable) -> None:
        work = 1 + self._draw.uniform(-self._curve.spread, self._curve.spread)
        self._count += 1
        heapq.heappush(self._ends, (self._each + work, self._count, request))

    def advance(self, elapsed_s: float) -> list[Hashable]:
        """Those that are answered by then, in order."""
        self._now_s += elapsed_s
        if self._now_s >= self._until_s:
            self._until_s = self._now_s + NOISE_S
            self._speed = max(0.1, self._draw.gauss(1.0, self._curve.noise)) if self._curve.noise else 1.0
        if not self.in_flight:
            return []
        self._each += self._speed * self._curve.rate(self.in_flight) / self.in_flight * elapsed_s
        while self._ends and self._ends[0][0] <= self._each:
            self._finished.append(heapq.heappop(self._ends)[2])
        if self._now_s < self._batch_at_s:
            return []
        self._batch_at_s = self._now_s + self._curve.batch_s
        done, self._finished = self._finished, []
        return done

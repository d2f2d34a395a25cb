"""Adapts the limit: how many images a runtime should be asked about at once, found from what it answers.

Pure: it is told of windows of answers and says a limit. A first search doubles the limit until that clearly loses, or the
most is reached: too low costs throughput, too high only waits. Where it fell off a cliff it closes in on the edge, and
where it was flat it halves as long as that costs nothing. Later looks are gentle: a step up must gain, a step down must
cost nothing. Each limit is measured until the difference stands out from the noise of the windows themselves.
Faults of the runtime bring the limit down at once, and it stays below where they came.
"""

import math
import statistics
from dataclasses import dataclass, field
from enum import StrEnum

_FIRST_STEP = 2.0
_LOOK_UP, _LOOK_DOWN = 1.5, 0.8
# Two limits nearer to each other than this are not told apart: the rate between them hardly differs.
_CLOSE = 1.25
_ENOUGH, _LOOK_ENOUGH = 0.99, 0.995  # of the best rate: a smaller limit that brings so much is preferred
_WORTH_GROWING = 1.015  # in a look; the first search goes on unless it loses
_WORTH_TWO_STEPS = 1.02
_LOST, _CLIFF = 0.98, 0.95  # of the rate below: a step up that loses, and one that fell off
_PLAIN_LOSS = 0.85  # seen in a single window, and no more are spent on it

# Windows are one round of answers each (limiter.py). On a GPU a round's rate is good to 1 or 2 %.
_LEAST_WINDOWS, _MOST_WINDOWS = 2, 6
_FIRST_WINDOWS = 3  # of the limit that others are compared with
_NOISE, _NOISE_WEIGHT = 0.015, 1  # relative, as if so many differences had been seen before the first
_PRECISE = 0.01  # a standard error of a difference that is small enough whatever the difference

_FAULTS, _FAULT_SHARE = 3, 0.05  # fewer than three may be one bad image, tried again
_AFTER_FAULTS, _BELOW_FAULTS = 0.7, 0.85  # of the limit at which they came: go there, and stay below
_REST_WINDOWS, _LONGEST_REST = (
    64,
    512,
)  # between two looks whether the best has moved; five minutes at 256 on an H100
_CEILING_WINDOWS = 2048  # faults, or the cause of a cliff, may be gone: one to three hours at full load


@dataclass(frozen=True, slots=True)
class Window:
    """What came of a row of slots under one limit.

    in_flight: how many were in flight on average over the time. answer_s: the mean time of a slot that was answered.
    """

    answered: int
    faults: int
    in_flight: float
    answer_s: float

    @property
    def rate(self) -> float:
        """Answers per second, by Little's law: steadier than counting, as batches are answered in bursts."""
        return self.in_flight / self.answer_s if self.answer_s > 0 else 0.0

    @property
    def is_faulty(self) -> bool:
        return self.faults >= _FAULTS and self.faults >= _FAULT_SHARE * (self.answered + self.faults)


class Phase(StrEnum):
    MEASURE = "measure"  # what the present limit brings
    UP = "up"  # a step up is on trial
    DOWN = "down"  # a limit between two known ones, or below all, is on trial
    REST = "rest"  # the best known; nothing is tried


@dataclass(slots=True)
class _Point:
    """What one limit brought in this search."""

    rates: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        return statistics.fmean(self.rates)

    @property
    def count(self) -> int:
        return len(self.rates)


class AdaptiveLimit:
    """Not safe to share between threads: its owner has a lock."""

    def __init__(self, *, start: int, least: int, most: int) -> None:
        """Raises ValueError unless 1 <= least <= start <= most."""
        if not 1 <= least <= start <= most:
            raise ValueError("1 <= least <= start <= most")
        self._least, self._most = least, most
        self._good = start  # the limit to go back to
        self._rested, self._rest = 0, _REST_WINDOWS
        self._ceiling, self._ceiling_left = most, 0
        self._is_first = True
        self._rested_at = 0
        self._search_from(start)

    @property
    def is_untried(self) -> bool:
        """Whether no window has been heard of yet."""
        return self._is_first and self.phase is Phase.MEASURE and not self._points

    def begin_at(self, start: int) -> None:
        """Search from there instead; within the bounds."""
        self._search_from(min(max(start, self._least), self._ceiling))

    def adapt(self, window: Window) -> None:
        """A window under the present limit has ended, in which nearly all of it was in use, or faults came."""
        self._age_ceiling()
        if window.is_faulty:
            self._retreat()
        elif self.phase is Phase.REST:
            self._rested += 1
            if self._rested >= self._rest:
                self._search_from(self._good)
        else:
            self._points.setdefault(self.limit, _Point()).rates.append(window.rate)
            if self._is_clear():
                self._go_on()

    def start_over(self) -> None:
        """The runtime went away and comes back cold: measure anew from the best known. A ceiling stays."""
        self._search_from(min(self._good, self._ceiling))

    # --- a search

    def _search_from(self, limit: int) -> None:
        self._points: dict[int, _Point] = {}
        self._good = limit
        self._try(limit, Phase.MEASURE)

    def _try(self, limit: int, phase: Phase) -> None:
        self.limit, self.phase = limit, phase

    def _is_clear(self) -> bool:
        """Whether the present limit has been measured well enough to be compared with the best of the others."""
        here = self._points[self.limit]
        others = [point for limit, point in self._points.items() if limit != self.limit]
        if not others:
            return here.count >= _FIRST_WINDOWS
        best = max(others, key=lambda point: point.rate)
        times, error = here.rate / best.rate, self._error(here, best)
        if here.count < _LEAST_WINDOWS:
            return times < _PLAIN_LOSS - 2 * error
        aim = self._aim
        return abs(times - aim) > 2 * error or error <= _PRECISE or here.count >= _MOST_WINDOWS

    @property
    def _aim(self) -> float:
        """Of the best rate: what the present limit must bring to be kept."""
        if self.phase is Phase.UP:
            return _LOST if self._is_first else _WORTH_GROWING
        return _ENOUGH if self._is_first else _LOOK_ENOUGH

    def _error(self, one: _Point, other: _Point) -> float:
        """The standard error of the ratio of their rates, from how windows under one limit differ from each other."""
        seen = [(rate / point.rate - 1) ** 2 for point in self._points.values() for rate in point.rates]
        freedom = len(seen) - len(self._points)
        noise = math.sqrt((sum(seen) + _NOISE_WEIGHT * _NOISE**2) / (freedom + _NOISE_WEIGHT))
        return noise * math.sqrt(1 / one.count + 1 / other.count)

    def _go_on(self) -> None:
        if self._is_first:
            self._search_on()
        else:
            self._look_on()

    # --- the first search

    def _search_on(self) -> None:
        if self.phase is Phase.DOWN or (self.phase is Phase.UP and (self._has_lost() or self._is_flat())):
            self._close_in()
            return
        self._good = self.limit
        up = min(math.ceil(self.limit * _FIRST_STEP), self._ceiling)
        if up > self.limit:
            self._try(up, Phase.UP)
        else:
            self._close_in()

    def _has_lost(self) -> bool:
        here, before = self._points[self.limit], self._points[self._good]
        return here.rate / before.rate < min(_LOST, 1 - self._error(here, before))

    def _is_flat(self) -> bool:
        """Whether two steps up have brought next to nothing: one may have been hidden by noise."""
        before = [point for limit, point in self._points.items() if limit <= self.limit / _FIRST_STEP**2]
        return any(self._points[self.limit].rate < point.rate * _WORTH_TWO_STEPS for point in before)

    def _close_in(self) -> None:
        """Towards the edge of a cliff; then down, until the smallest power of the step that is good enough is known."""
        best = self._best()
        above = self._fallen_above(best)
        if above is not None and above > best * _CLOSE:
            self._try(round(math.sqrt(best * above)), Phase.DOWN)
            return
        found = min(limit for limit in self._points if self._is_enough(limit, best))
        if found == min(self._points) and found > self._least:
            self._try(max(self._least, math.floor(found / _FIRST_STEP)), Phase.DOWN)
        else:
            self._settle(found)

    def _best(self) -> int:
        """The largest of those that cannot be told from the best: too high only waits."""
        top = max(self._points.values(), key=lambda point: point.rate)
        return max(
            limit
            for limit, point in self._points.items()
            if point is top or point.rate / top.rate >= 1 - min(self._error(point, top), 1 - _LOST)
        )

    def _fallen_above(self, limit: int) -> int | None:
        """The smallest limit above this one that fell off a cliff."""
        fallen = (above for above in self._points if above > limit and self._times(above, limit) < _CLIFF)
        return min(fallen, default=None)

    # --- a later look: one step up, and one down where that brought nothing

    def _look_on(self) -> None:
        if self.phase is Phase.DOWN:
            self._settle(self.limit if self._is_enough(self.limit, self._good) else self._good)
            return
        if self.phase is Phase.UP and self._times(self.limit, self._good) < _WORTH_GROWING:
            self._step_down()
            return
        self._good = self.limit
        up = min(math.ceil(self.limit * _LOOK_UP), self._ceiling)
        if up > self.limit * _WORTH_GROWING:
            self._try(up, Phase.UP)
        else:
            self._step_down()

    def _step_down(self) -> None:
        down = max(math.floor(self._good * _LOOK_DOWN), self._least)
        if down < self._good == self._rested_at:
            self._try(down, Phase.DOWN)
        else:
            self._settle(self._good)

    # --- what the points tell

    def _times(self, limit: int, other: int) -> float:
        return self._points[limit].rate / self._points[other].rate

    def _is_enough(self, limit: int, best: int) -> bool:
        if limit == best:
            return True
        here, there = self._points[limit], self._points[best]
        enough = _ENOUGH if self._is_first else _LOOK_ENOUGH
        return limit < best and here.rate / there.rate >= enough + max(self._error(here, there) - _PRECISE, 0)

    def _settle(self, limit: int) -> None:
        if (fallen := self._fallen_above(limit) if limit in self._points else None) is not None:
            self._bound(round(math.sqrt(limit * fallen)))  # no further step goes there for a while
        moved = limit != self._rested_at
        self._rest = _REST_WINDOWS if moved else min(self._rest * 2, _LONGEST_REST)
        self._good = self._rested_at = limit
        self._rested, self._is_first = 0, False
        self._try(limit, Phase.REST)

    # --- bounds

    def _bound(self, limit: int) -> None:
        self._ceiling = min(self._ceiling, max(limit, self._least))
        self._ceiling_left = _CEILING_WINDOWS

    def _retreat(self) -> None:
        self._ceiling = max(int(self.limit * _BELOW_FAULTS), self._least)
        self._ceiling_left = _CEILING_WINDOWS
        self._points = {}
        self._settle(max(int(self.limit * _AFTER_FAULTS), self._least))

    def _age_ceiling(self) -> None:
        if self._ceiling_left:
            self._ceiling_left -= 1
            if not self._ceiling_left:
                self._ceiling = self._most

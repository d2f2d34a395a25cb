"""Adapts the limit: how many images a runtime should be asked about at once, found from what it answers.

Pure: it is told of windows of answers and says a limit. From `start` it grows by half while that brings throughput, and
goes back where it does not; then it goes down by fifths while that costs none, since a longer queue in the runtime
only brings its timeouts nearer. Faults of the runtime bring it down at once, and it stays below where they came.
"""

import math
from dataclasses import dataclass
from enum import StrEnum

_UP, _DOWN = 1.5, 0.8
# A step up by half from 32 in flight brought 4 % on an H100 (13 % from 32 to 128): worth having. Means over eight rounds
# of answers are good to about 1 %.
_WORTH_GROWING, _WORTH_KEEPING = 1.03, 0.985
_FAULTS, _FAULT_SHARE = 3, 0.05  # fewer than three may be one bad image, tried again
_AFTER_FAULTS, _BELOW_FAULTS = 0.7, 0.85  # of the limit at which they came: go there, and stay below
_REST_WINDOWS, _LONGEST_REST = (
    4,
    64,
)  # between two looks whether the best has moved; each look costs three windows
_CEILING_WINDOWS = 256  # faults may have had a cause that is gone: about an hour at full load


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
    DOWN = "down"  # a step down is on trial
    REST = "rest"  # the best known; nothing is tried


class AdaptiveLimit:
    """Not safe to share between threads: its owner has a lock."""

    def __init__(self, *, start: int, least: int, most: int) -> None:
        """Raises ValueError unless 1 <= least <= start <= most."""
        if not 1 <= least <= start <= most:
            raise ValueError("1 <= least <= start <= most")
        self.limit = start
        self.phase = Phase.MEASURE
        self._least, self._most = least, most
        self._good = start  # the limit to go back to
        self._rate = 0.0  # and what it brought
        self._rested, self._rest = 0, _REST_WINDOWS
        self._ceiling, self._ceiling_left = most, 0

    @property
    def rate(self) -> float:
        """Answers per second at the best known limit; 0 before anything is known."""
        return self._rate

    def adapt(self, window: Window) -> None:
        """A window under the present limit has ended, in which nearly all of it was in use, or faults came."""
        self._age_ceiling()
        if window.is_faulty:
            self._retreat()
        elif self.phase is Phase.REST:
            self._rested += 1
            if self._rested >= self._rest:
                self.phase = Phase.MEASURE
        elif self.phase is Phase.MEASURE:
            self._rate = window.rate
            self._try_up()
        elif self.phase is Phase.UP:
            self._judge_up(window.rate)
        else:
            self._judge_down(window.rate)

    def start_over(self) -> None:
        """The runtime went away and comes back cold: measure anew from the best known. A ceiling stays."""
        self.limit, self.phase = self._good, Phase.MEASURE

    def _judge_up(self, rate: float) -> None:
        if rate >= self._rate * _WORTH_GROWING:
            self._keep(rate)
            self._try_up()
        else:
            self._try_down()

    def _judge_down(self, rate: float) -> None:
        if rate >= self._rate * _WORTH_KEEPING:
            # The rate stays that of the top, or many small losses would pass one by one.
            self._keep(max(rate, self._rate))
            self._try_down()
        else:
            self._settle()

    def _keep(self, rate: float) -> None:
        if self.limit != self._good:
            self._rest = _REST_WINDOWS  # the best has moved: look again soon
        self._good, self._rate = self.limit, rate

    def _try_up(self) -> None:
        up = min(math.ceil(self._good * _UP), self._ceiling)
        if up > self._good:
            self.limit, self.phase = up, Phase.UP
        else:
            self._try_down()

    def _try_down(self) -> None:
        down = max(math.floor(self._good * _DOWN), self._least)
        if down < self._good:
            self.limit, self.phase = down, Phase.DOWN
        else:
            self._settle()

    def _settle(self) -> None:
        self.limit, self.phase = self._good, Phase.REST
        self._rested, self._rest = 0, min(self._rest * 2, _LONGEST_REST)

    def _retreat(self) -> None:
        self._ceiling = max(int(self.limit * _BELOW_FAULTS), self._least)
        self._ceiling_left = _CEILING_WINDOWS
        self._good = max(int(self.limit * _AFTER_FAULTS), self._least)
        self._settle()

    def _age_ceiling(self) -> None:
        if self._ceiling_left:
            self._ceiling_left -= 1
            if not self._ceiling_left:
                self._ceiling = self._most

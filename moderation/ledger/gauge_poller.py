"""Reads the ledger's numbers again and again, so that whoever shows them never waits, and Postgres hardly notices.

An answer serves for its pause, and for fifty times as long as reading it took: however large the ledger is, a watch
takes at most 2 % of one connection, and twice that while it audits.
"""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine

from moderation.errors import LedgerUnavailable
from moderation.ledger.gauges import AUDIT, QUICK, GaugeQuery
from moderation.log import get_logger

log = get_logger(__name__)

_REST = 50  # times as long as a reading took
_LOOK_EVERY_S = 1.0


@dataclass(frozen=True, slots=True)
class Sample:
    """What was read, how long that took, and when, by the monotonic clock."""

    value: Any
    took_s: float
    at: float

    @property
    def age_s(self) -> float:
        return time.monotonic() - self.at


class GaugePoller:
    """Two threads: the audit may take minutes, and must not keep the rest waiting."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._kept: dict[str, Sample] = {}
        self._answers: bool | None = None  # whether Postgres did, last time
        self._stopped = threading.Event()

    def start(self) -> None:
        for name, readings in (("watch", QUICK), ("audit", (AUDIT,))):
            threading.Thread(target=self._run, args=(readings,), name=name, daemon=True).start()

    def stop(self) -> None:
        self._stopped.set()

    @property
    def answers(self) -> bool:
        return bool(self._answers)

    def kept(self) -> dict[str, Sample]:
        return dict(self._kept)

    def read(self, readings: Sequence[GaugeQuery] = (*QUICK, AUDIT)) -> None:
        """Read what is due. What cannot be read is forgotten: an old number would pass for a good one."""
        for reading in readings:
            if not self._is_due(reading):
                continue
            start = time.monotonic()
            try:
                value = reading.read(self._engine)
            except LedgerUnavailable as exc:
                self._kept.pop(reading.name, None)
                self._answers = False
                log.warning("ledger_not_read", reading=reading.name, error=str(exc))
            else:
                self._answers = True
                self._kept[reading.name] = Sample(value, time.monotonic() - start, time.monotonic())

    def _is_due(self, reading: GaugeQuery) -> bool:
        kept = self._kept.get(reading.name)
        return kept is None or kept.age_s >= max(reading.pause_s, _REST * kept.took_s)

    def _run(self, readings: Sequence[GaugeQuery]) -> None:
        while not self._stopped.is_set():
            try:
                self.read(readings)
            except Exception:  # a watch that ends in silence shows numbers that stand still
                log.exception("watch_failed")
            self._stopped.wait(_LOOK_EVERY_S)

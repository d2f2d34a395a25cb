"""The gate: shut while something that every item needs is down, so that no work is taken that would be given back."""

import threading
from collections.abc import Callable

import structlog

from moderation import metrics
from moderation.errors import Unavailable

log = structlog.get_logger()

_LOOK_EVERY_S = 0.5


class Gate:
    """Open, or shut for a reason. A thread of its own asks what is down until it answers, and opens again.

    checks: what must all pass for the gate to open; each raises Unavailable while it does not.
    """

    def __init__(self, *checks: Callable[[], None]) -> None:
        self._checks = checks
        self._open = threading.Event()
        self._shut = threading.Event()
        self._stopped = threading.Event()
        self.reason = "starting"
        self._shut.set()
        self._thread = threading.Thread(target=self._watch, name="gate", daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def is_open(self) -> bool:
        return self._open.is_set()

    def shut(self, error: Unavailable) -> None:
        """Shut for this reason; opens by itself once every check passes."""
        self.reason = f"{error.code}: {error}"
        if self._open.is_set():
            metrics.GATE_SHUT.labels(error.code).inc()
            log.warning("gate_shut", reason=self.reason)
        self._open.clear()
        self._shut.set()

    def wait(self, timeout_s: float) -> bool:
        """Whether the gate was open within the time."""
        return self._open.wait(timeout_s)

    def stop(self) -> None:
        """Shut for good."""
        self._stopped.set()
        self._open.clear()
        self._shut.set()
        if self._thread.is_alive():
            self._thread.join(timeout=2 * _LOOK_EVERY_S)

    def _watch(self) -> None:
        while not self._stopped.is_set():
            self._shut.wait()
            if self._stopped.is_set():
                return
            if self._passes():
                self._shut.clear()
                self._open.set()
                log.info("gate_opened")
            else:
                self._stopped.wait(_LOOK_EVERY_S)

    def _passes(self) -> bool:
        try:
            for check in self._checks:
                check()
        except Unavailable as exc:
            reason = f"{exc.code}: {exc}"
            if reason != self.reason:
                log.info("gate_waiting", reason=reason)
                self.reason = reason
            return False
        except (
            Exception
        ):  # a check that fails in an unforeseen way must not end the thread that opens the gate
            log.exception("gate_check_failed")
            return False
        return True

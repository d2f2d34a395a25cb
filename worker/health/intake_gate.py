"""The intake gate: a circuit breaker. It shuts while something that every item needs is down, so no work is taken."""

import threading
from collections.abc import Callable

import structlog

from moderation import metrics
from moderation.errors import Unavailable
from worker.health.readiness import Readiness

log = structlog.get_logger()

_LOOK_EVERY_S = 0.5
# While nothing is in hand: else an image would be the first to meet a runtime that is gone.
_IDLE_LOOK_S = 5.0
_START = "start"
# The conditions' names for what is down, by the error's code. "runtime" is left to whoever starts one.
_NAMES = {
    "ledger_unavailable": "database",
    "runtime_unavailable": "judge",
    "runtime_crashed": "judge",
    "decoder_unavailable": "decoder",
    "broker_unavailable": "redis",
}


class IntakeGate:
    """Open, or shut for a reason. A thread of its own asks what is down until it answers, and opens again.

    checks: what must all pass for the gate to open; each raises Unavailable while it does not.
    conditions: where it says for what it is shut. tick: called at each turn of its loop. is_idle: whether nothing in hand
    would show that something is down.
    """

    def __init__(
        self,
        *checks: Callable[[], None],
        conditions: Readiness,
        tick: Callable[[], None] = lambda: None,
        is_idle: Callable[[], bool] = lambda: False,
    ) -> None:
        self._checks = checks
        self._conditions = conditions
        self._tick = tick
        self._is_idle = is_idle
        self._condition_names: set[str] = set()  # ours among the conditions
        self._lock = threading.Lock()  # over the reason and what the conditions say of it
        self._open = threading.Event()
        self._shut = threading.Event()
        self._stopped = threading.Event()
        self.reason = "starting"
        self._say(_START, "the first checks have not passed yet")
        self._shut.set()
        self._thread = threading.Thread(target=self._watch, name="gate", daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def is_open(self) -> bool:
        return self._open.is_set()

    def shut(self, error: Unavailable) -> None:
        """Shut for this reason; opens by itself once every check passes."""
        reason = f"{error.code}: {error}"
        with self._lock:
            self.reason = reason
            if self._open.is_set():
                metrics.GATE_SHUT.labels(error.code).inc()
                log.warning("gate_shut", reason=reason)
            self._open.clear()
            self._shut.set()
            self._say(_NAMES.get(error.code, error.code), str(error))

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
            self._tick()
            if not self._shut.wait(_IDLE_LOOK_S):
                if self._is_idle():
                    self._look()
            elif self._stopped.is_set():
                return
            elif self._passes():
                self._let_in()
            else:
                self._stopped.wait(_LOOK_EVERY_S)

    def _look(self) -> None:
        """Whether all is well while it is open."""
        try:
            for check in self._checks:
                check()
        except Unavailable as exc:
            self.shut(exc)
        except Exception:  # as in _passes; what is in hand next will tell
            log.exception("gate_check_failed")

    def _let_in(self) -> None:
        with self._lock:
            self._shut.clear()
            self._open.set()
            self._take_down(self._condition_names)
        log.info("gate_opened")

    def _say(self, name: str, reason: str) -> None:
        """among the conditions, in place of what stood there for us: the first check that fails is the one that counts."""
        self._take_down(self._condition_names - {name})
        self._condition_names.add(name)
        self._conditions.wait_for(name, reason)

    def _take_down(self, names: set[str]) -> None:
        for name in tuple(names):
            self._conditions.clear(name)
            self._condition_names.discard(name)

    def _passes(self) -> bool:
        try:
            for check in self._checks:
                check()
        except Unavailable as exc:
            reason = f"{exc.code}: {exc}"
            if reason != self.reason:
                log.info("gate_waiting", reason=reason)
                self.reason = reason
            with self._lock:
                self._say(_NAMES.get(exc.code, exc.code), str(exc))
            return False
        except (
            Exception
        ):  # a check that fails in an unforeseen way must not end the thread that opens the gate
            log.exception("gate_check_failed")
            return False
        return True

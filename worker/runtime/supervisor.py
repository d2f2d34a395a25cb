"""The supervisor: keeps one SGLang server for this worker, starts it anew when it fails, and lets none outlive us."""

import random
import threading
import time
from collections.abc import Callable
from dataclasses import replace

import structlog

from moderation import metrics
from moderation.errors import Misuse, RuntimeUnavailable, VetlineError
from worker.health.readiness import Readiness
from worker.judges.protocol import Runtime
from worker.judges.settings import SglangSettings
from worker.runtime.admission import Admission
from worker.runtime.serving import Serving
from worker.runtime.settings import RuntimeSettings
from worker.runtime.start import StartCancelled, Starter
from worker.runtime.watch import ServerWatch

log = structlog.get_logger()

_STATES = ("starting", "ready", "replacing", "down")  # as metrics show them

_LOOK_S = 0.1
_BOARD = "runtime"  # our name there


class Supervisor:
    """A thread that starts, watches, ends and starts again. Made idle; `start` begins."""

    def __init__(self, settings: RuntimeSettings, judge: SglangSettings) -> None:
        self.settings = settings
        self.admission = Admission()
        self._judge = judge
        self._state = _STATES[0]
        self._stopped = threading.Event()
        self._serving: Serving | None = None
        self._starter = Starter(settings, judge, tell=self._tell, stopped=self._stopped)
        self._failures = 0  # in a row; a server that was well for a while ends the row
        self._failed_starts = 0  # in a row; a server that became ready ends it
        self._last_failure = ""
        self._waiting_for = "the runtime has not been started"
        self._conditions = Readiness()  # whoever starts us has one
        self._on_down: Callable[[RuntimeUnavailable], None] = lambda _: None
        self._on_hopeless: Callable[[VetlineError], None] = lambda _: None
        self._thread = threading.Thread(target=self._run, name="runtime", daemon=True)

    def start(
        self,
        *,
        conditions: Readiness,
        on_down: Callable[[RuntimeUnavailable], None],
        on_hopeless: Callable[[VetlineError], None],
    ) -> None:
        """on_down: called when the server is lost or about to be stopped. on_hopeless: when none can be had."""
        self._conditions, self._on_down, self._on_hopeless = conditions, on_down, on_hopeless
        self._tell("SGLang is about to start")
        self._thread.start()

    def stop(self) -> None:
        """End the server and all that it started, within stop_s and a few seconds."""
        self._stopped.set()
        if self._thread.ident is None:
            return
        self._thread.join(timeout=self.settings.stop_s + 2)
        if self._thread.is_alive() and self._starter.process is not None:
            self._starter.process.kill()  # whatever the thread waits for ends with it
            self._thread.join(timeout=5)

    def serving(self) -> Serving:
        """The server that may be asked now. Raises RuntimeUnavailable, saying in words what is waited for."""
        serving = self._serving
        if serving is None or serving.fault or serving.closing:
            raise RuntimeUnavailable(
                self._waiting_for if serving is None else "the runtime is being replaced"
            )
        return serving

    def runtime(self) -> Runtime:
        """What it is and how it is, whether it may be asked now or not."""
        serving = self._serving
        if serving is None:
            return Runtime("sglang", self._state, model=self._judge.model or self.settings.model)
        return replace(serving.asked.runtime(), state=self._state)

    # --- the thread

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                self._one_life()
            except StartCancelled:
                return
            except Misuse as error:
                self._give_up(error)
                return
            except Exception as error:
                if not isinstance(error, VetlineError):  # ours to mend; one that ends in silence is worse
                    log.exception("supervisor_failed")
                if not self._try_again(error):
                    return

    def _one_life(self) -> None:
        """From a start to an end. Returns after a planned end; raises what ended it otherwise."""
        self._failed_starts += 1
        self._is("starting")
        serving = self._starter.start()
        self._failed_starts = 0
        self._serving = serving
        self._conditions.clear(_BOARD)
        self._is("ready")
        watch = ServerWatch(serving, self.settings)
        try:
            reason = self._follow(serving, watch)
            self._recycle(serving, reason)
        except BaseException:
            self._lose(serving)
            raise
        finally:
            if time.monotonic() - serving.ready_at >= self.settings.steady_s or serving.closing:
                self._failures = 0
            self._serving = None

    def _follow(self, serving: Serving, watch: ServerWatch) -> str:
        """Why it is to be stopped as planned. Raises RuntimeUnavailable when it has failed."""
        while not self._stopped.wait(_LOOK_S):
            if reason := watch.look():
                return reason
        return "the worker stops"

    def _recycle(self, serving: Serving, reason: str) -> None:
        serving.closing = reason
        self._is("replacing")
        log.info("runtime_stopping", reason=reason, images=serving.images)
        self._tell(f"the runtime is replaced: {reason}")
        self._on_down(RuntimeUnavailable(f"the runtime is being replaced: {reason}"))
        if not self._stopped.is_set():
            metrics.RUNTIME_RESTARTS.labels("planned").inc()
        if not self._stopped.is_set() and not self.admission.wait_until_empty(self.settings.drain_s):
            log.warning("runtime_drain_timed_out", left=self.admission.visitors)
        serving.end(within_s=self.settings.stop_s)
        code = serving.process.exit_code
        log.info("runtime_stopped", exit_code=code, clean=code == serving.traits.clean_exit)

    def _lose(self, serving: Serving) -> None:
        """Everything in hand is told at once, and nothing of the server is left."""
        self._tell("the runtime went down")
        self._is("down")
        serving.fault = serving.fault or "it ended"
        self._on_down(RuntimeUnavailable("the runtime went down"))
        serving.end()

    def _try_again(self, error: Exception) -> bool:
        """Wait for the next start; False where there is to be none."""
        if self._failed_starts >= self.settings.starts:
            self._give_up(
                RuntimeUnavailable(f"{self._failed_starts} starts in a row have failed; the last: {error}")
            )
            return False
        self._failures += 1
        self._is("down")
        metrics.RUNTIME_RESTARTS.labels("failed").inc()
        delay_s = min(self.settings.restart_cap_s, self.settings.restart_delay_s * 2 ** (self._failures - 1))
        delay_s *= random.uniform(0.75, 1.25)  # noqa: S311 - spreads the workers of a host, guards nothing
        log.error("runtime_failed", error=str(error), failures=self._failures, again_in_s=round(delay_s, 1))
        self._last_failure = str(error)
        self._tell(f"SGLang starts again in {delay_s:.1f} s")
        return not self._stopped.wait(delay_s)

    def _give_up(self, error: VetlineError) -> None:
        log.critical("runtime_hopeless", code=error.code, error=str(error))
        self._tell(str(error))
        self._on_hopeless(error)

    def _is(self, state: str) -> None:
        self._state = state
        metrics.runtime_is(state, _STATES)

    def _tell(self, what: str) -> None:
        """Say what is waited for, among the conditions and in the log; and why, where it is not the first start."""
        if self._failures and self._last_failure not in what:
            row = f"{self._failures} failures in a row, the last" if self._failures > 1 else "it failed"
            what = f"{what}; {row}: {self._last_failure}"
        self._waiting_for = what
        self._conditions.wait_for(_BOARD, what)
        log.info("runtime_waiting", what=what)

"""A server that has answered an image: who asks it, what its errors mean, and whether it is to be asked any longer."""

import threading
import time

from intake.picture import View
from moderation.errors import JudgeTimeout, RuntimeCrashed, RuntimeFault, RuntimeUnavailable, VetlineError
from moderation.policy import PolicyRevision
from moderation.verdict import Judgement
from worker.judges.sglang import SglangJudge
from worker.runtime.canary import Canary
from worker.runtime.process import RuntimeProcess
from worker.runtime.versions import Traits

_NOTICE_S = 3.0  # from a dropped connection to the end of the process; a killed scheduler is seen within 1 s


class Serving:
    """Shared by all threads of the worker."""

    def __init__(self, process: RuntimeProcess, judge: SglangJudge, canary: Canary, traits: Traits) -> None:
        self.process = process
        self.asked = judge
        self.canary = canary
        self.traits = traits
        self.ready_at = self.answered_at = time.monotonic()
        self.images = 0  # answered; a few may be missed, as nobody holds a lock for it
        self.fault: str | None = None  # why it must be ended
        self.closing: str | None = None  # why it is being ended as planned
        self._ended = threading.Event()

    def judge(self, view: View, policy: PolicyRevision, *, timeout_s: float) -> Judgement:
        """As SglangJudge.judge. Raises RuntimeCrashed in place of what came of the server's own end."""
        try:
            judgement = self.asked.judge(view, policy, timeout_s=timeout_s)
        except (RuntimeUnavailable, RuntimeFault, JudgeTimeout) as error:
            diagnosed = self.meaning_of(error)
            if diagnosed is error:
                raise
            raise diagnosed from error
        self.images += 1
        self.answered_at = time.monotonic()
        return judgement

    def meaning_of(self, error: VetlineError) -> VetlineError:
        """The error itself where the server is well; else that it went down with the item in hand.

        A 500 is the item's own fault, or the whole pool of image workers is broken; silence is a slow image, or a
        server that hangs. The canary tells which.
        """
        diagnosed = self._meaning_of(error)
        if diagnosed is not error:
            diagnosed.asks = error.asks
        return diagnosed

    def _meaning_of(self, error: VetlineError) -> VetlineError:
        if isinstance(error, RuntimeUnavailable) and self._ended.wait(_NOTICE_S):
            return self._gone(error)
        problem = self.canary.problem()
        if problem is None:
            return error
        self.fault = self.fault or problem
        return self._gone(error)

    def end(self, *, within_s: float | None = None) -> None:
        """End the process and all that it started: at once, or by SIGTERM first. Asks that wait for it end too."""
        if within_s is None:
            self.process.kill()
        else:
            self.process.stop(within_s=within_s)
        self._ended.set()
        self.asked.close()
        self.canary.close()

    def _gone(self, error: VetlineError) -> VetlineError:
        if self.closing is not None:
            return RuntimeUnavailable(f"the runtime is being stopped: {self.closing}")
        return RuntimeCrashed(f"the runtime went down with it in hand: {self.fault or error}")

"""The sglang judge on a server that this worker keeps for itself."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from intake.picture import View
from moderation.errors import (
    JudgeTimeout,
    Poison,
    RuntimeCrashed,
    RuntimeFault,
    RuntimeUnavailable,
    VetlineError,
)
from moderation.policy import PolicyRevision
from moderation.verdict import Basis, Judgement
from worker.health.readiness import Readiness
from worker.judges.protocol import Runtime
from worker.judges.settings import SglangSettings
from worker.runtime.settings import RuntimeSettings
from worker.runtime.supervisor import Supervisor

# A suspect alone takes as long as one image does; a row of them may take longer, and then others go elsewhere.
_ADMISSION_S = 30.0


class RuntimeJudge:
    """See worker.judges.protocol.Judge. Judges once `start` was called and a server has answered an image."""

    name = "sglang"
    needs_pixels = False

    def __init__(self, settings: RuntimeSettings, judge: SglangSettings) -> None:
        self._supervisor = Supervisor(settings, judge)

    def start(
        self,
        *,
        conditions: Readiness,
        on_down: Callable[[RuntimeUnavailable], None],
        on_hopeless: Callable[[VetlineError], None],
    ) -> None:
        """See Supervisor.start."""
        self._supervisor.start(conditions=conditions, on_down=on_down, on_hopeless=on_hopeless)

    def check(self) -> None:
        self._supervisor.serving()

    def basis(self) -> Basis | None:
        try:
            return self._supervisor.serving().asked.basis()
        except RuntimeUnavailable:
            return None

    def runtime(self) -> Runtime:
        return self._supervisor.runtime()

    def judge(self, view: View, policy: PolicyRevision, *, timeout_s: float) -> Judgement:
        with self._supervisor.admission.visit(min(timeout_s, _ADMISSION_S)):
            return self._supervisor.serving().judge(view, policy, timeout_s=timeout_s)

    @contextmanager
    def alone(self, timeout_s: float) -> Iterator[SglangSettings]:
        """Nobody else asks the server meanwhile; the settings reach it.

        Raises Poison where it goes down before the block ends; RuntimeUnavailable where it is not to be had.
        """
        with self._supervisor.admission.alone(timeout_s):
            serving = self._supervisor.serving()
            try:
                yield serving.asked.settings
            except (RuntimeUnavailable, RuntimeFault, JudgeTimeout) as error:
                diagnosed = serving.meaning_of(error)
                if isinstance(diagnosed, RuntimeCrashed):
                    raise Poison(f"alone with it, {diagnosed}") from error
                raise

    def close(self) -> None:
        self._supervisor.stop()

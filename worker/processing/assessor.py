"""The assessor: how this worker gets from a claim to a verdict. A suspect's path is the same, in a process of its own."""

from functools import partial

from sqlalchemy import Engine

from intake.picture import View
from moderation.assessment import Claim
from moderation.ledger.reuse import KnownVerdict, find_known
from moderation.policy import PolicyRevision
from moderation.settings import LeaseSettings
from moderation.verdict import Verdict
from worker.processing.assess import LazyImage, assess
from worker.processing.components import Components
from worker.processing.isolated_run import IsolatedRun
from worker.processing.step_timer import StepTimer


class Assessor:
    """Shared by all threads of a worker."""

    def __init__(
        self, engine: Engine, components: Components, isolated_run: IsolatedRun, lease: LeaseSettings
    ) -> None:
        self._engine = engine
        self._components = components
        self._isolated_run = isolated_run
        self._lease = lease

    def assess(self, item: Claim, image: LazyImage, policy: PolicyRevision, timer: StepTimer) -> Verdict:
        """As `worker.processing.assess.assess`; a suspect of having killed workers is assessed alone, under observation."""
        if item.crashes >= self._lease.suspect_crashes:
            return self._isolated_run.assess(item, policy, timer)
        return assess(image, policy, self._components, timer, recall=partial(self._recall, item))

    def _recall(self, item: Claim, view: View) -> KnownVerdict | None:
        """The verdict about the same pixels under the same policy revision and on the same basis, if it may serve."""
        basis = self._components.judge.basis() if item.reuse else None
        if basis is None:
            return None
        return find_known(self._engine, view.pixels_sha256, item.policy_revision_id, basis)

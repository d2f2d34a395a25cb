"""Policy revisions that this worker has loaded. A revision never changes, so what is in memory stays right."""

from functools import lru_cache, partial

from sqlalchemy import Engine

from moderation.errors import VetlineError
from moderation.ledger.policies import load_revision
from moderation.policy import PolicyRevision

_MOST = 512


class PolicyCache:
    """Loads each revision once."""

    def __init__(self, engine: Engine) -> None:
        self._load = lru_cache(maxsize=_MOST)(partial(load_revision, engine))

    def get(self, revision_id: int) -> PolicyRevision:
        """Raises what load_revision raises."""
        return self._load(revision_id)

    def shown_ref(self, revision_id: int) -> str:
        """The revision's ref to show to people; empty where it cannot be loaded."""
        try:
            return self.get(revision_id).ref
        except VetlineError:
            return ""

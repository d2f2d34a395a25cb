"""Which assessments a command means."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

# The host of an https URI, the bucket of an s3 one; '' for a file, a data URI, and whatever has none.
HOST = r"coalesce(lower(substring(a.uri from '^[A-Za-z0-9.+-]+://(?:[^/?#]*@)?(\[[^]]*\]|[^/?#:]*)')), '')"

# The casts tell Postgres the type of a parameter that may be NULL.
SELECTED = f"""
    (CAST(:code AS text) IS NULL OR a.error_code = :code)
    AND (CAST(:batch AS text) IS NULL OR a.batch = :batch)
    AND (CAST(:policy AS text) IS NULL OR a.policy = :policy)
    AND (CAST(:ended_after AS timestamptz) IS NULL OR a.ended_at > :ended_after)
    AND (CAST(:ended_before AS timestamptz) IS NULL OR a.ended_at <= :ended_before)
    AND (cardinality(CAST(:ids AS uuid[])) = 0 OR a.id = ANY(CAST(:ids AS uuid[])))
    AND (CAST(:host AS text) IS NULL OR {HOST} = :host)
"""


@dataclass(frozen=True, slots=True)
class Selection:
    """Every field that is None leaves the choice open. host: in lower case, without its port."""

    code: str | None = None
    batch: str | None = None
    policy: str | None = None
    ids: tuple[UUID, ...] = ()
    host: str | None = None
    ended_after: datetime | None = None
    ended_before: datetime | None = None

    def values(self) -> dict[str, Any]:
        return {
            "code": self.code,
            "batch": self.batch,
            "policy": self.policy,
            "ids": list(self.ids),
            "host": self.host,
            "ended_after": self.ended_after,
            "ended_before": self.ended_before,
        }

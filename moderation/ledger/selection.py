"""A selection: which assessments a command means."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

# The host of an https URI, the bucket of an s3 one; '' for a file, a data URI, and whatever has none.
HOST = r"coalesce(lower(substring(a.uri from '^[A-Za-z0-9.+-]+://(?:[^/?#]*@)?(\[[^]]*\]|[^/?#:]*)')), '')"

# The casts tell Postgres the type of a parameter that may be NULL.
SELECTED = f"""
    (cardinality(CAST(:codes AS text[])) = 0 OR a.error_code = ANY(CAST(:codes AS text[])))
    AND (CAST(:batch AS text) IS NULL OR a.batch = :batch)
    AND (CAST(:policy AS text) IS NULL OR a.policy = :policy)
    AND (CAST(:tenant AS text) IS NULL OR a.tenant = :tenant)
    AND (CAST(:created_after AS timestamptz) IS NULL OR a.created_at > :created_after)
    AND (CAST(:created_before AS timestamptz) IS NULL OR a.created_at <= :created_before)
    AND (CAST(:ended_after AS timestamptz) IS NULL OR a.ended_at > :ended_after)
    AND (CAST(:ended_before AS timestamptz) IS NULL OR a.ended_at <= :ended_before)
    AND (cardinality(CAST(:ids AS uuid[])) = 0 OR a.id = ANY(CAST(:ids AS uuid[])))
    AND (CAST(:host AS text) IS NULL OR {HOST} = :host)
"""


@dataclass(frozen=True, slots=True)
class Selection:
    """Every field that is None or empty leaves the choice open. host: in lower case, without its port."""

    codes: tuple[str, ...] = ()
    batch: str | None = None
    policy: str | None = None
    tenant: str | None = None
    ids: tuple[UUID, ...] = ()
    host: str | None = None
    ended_after: datetime | None = None
    ended_before: datetime | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None

    def values(self) -> dict[str, Any]:
        return {
            "codes": list(self.codes),
            "batch": self.batch,
            "policy": self.policy,
            "tenant": self.tenant,
            "ids": list(self.ids),
            "host": self.host,
            "ended_after": self.ended_after,
            "ended_before": self.ended_before,
            "created_after": self.created_after,
            "created_before": self.created_before,
        }

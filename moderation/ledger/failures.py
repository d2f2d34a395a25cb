"""Reads failures for whoever must find the cause: groups first, then the items."""

from enum import StrEnum
from typing import Any

from sqlalchemy import Engine, TextClause, text

from moderation.ledger.engine import autocommit
from moderation.ledger.selection import HOST, SELECTED, Selection

Row = dict[str, Any]


class FailureGroup(StrEnum):
    """What failures are counted by."""

    CODE = "code"
    HOST = "host"
    POLICY = "policy"
    BATCH = "batch"
    TENANT = "tenant"


_BY = {
    FailureGroup.CODE: "a.error_code",
    FailureGroup.HOST: HOST,
    FailureGroup.POLICY: "a.policy",
    FailureGroup.BATCH: "coalesce(a.batch, '')",
    FailureGroup.TENANT: "coalesce(a.tenant, '')",
}

_ITEMS = text(f"""
    SELECT a.id, a.uri, r.policy || '@' || r.revision AS policy, a.batch, a.tenant, {HOST} AS host, a.error_code,
           a.error_detail, a.attempt, a.crashes, a.created_at, a.ended_at
    FROM assessment a JOIN policy_revision r ON r.id = a.policy_revision_id
    WHERE a.state = 'failed' AND {SELECTED}
    ORDER BY a.ended_at LIMIT :limit
""")


def failures(engine: Engine, selection: Selection, *, limit: int = 1000) -> list[Row]:
    """Failed assessments, oldest first."""
    return _all(engine, _ITEMS, selection.values() | {"limit": limit})


def failure_counts(engine: Engine, selection: Selection) -> dict[str, int]:
    """Failed assessments by error code, most first."""
    return {row["code"]: row["n"] for row in failure_groups(engine, selection, [FailureGroup.CODE])}


def failure_groups(engine: Engine, selection: Selection, by: list[FailureGroup]) -> list[Row]:
    """How many failed (n) of each combination of these, most first, and when the first and the last of them did."""
    return _all(engine, _grouped(by), selection.values())


def _grouped(by: list[FailureGroup]) -> TextClause:
    columns = ", ".join(f"{_BY[group]} AS {group.value}" for group in by)
    numbers = ", ".join(str(number + 1) for number in range(len(by)))
    return text(f"""
        SELECT {columns}, count(*) AS n, min(a.ended_at) AS first_at, max(a.ended_at) AS last_at
        FROM assessment a WHERE a.state = 'failed' AND {SELECTED} GROUP BY {numbers} ORDER BY n DESC, {numbers}
    """)


def _all(engine: Engine, statement: Any, values: dict[str, Any]) -> list[Row]:
    with autocommit(engine) as connection:
        return [dict(row) for row in connection.execute(statement, values).mappings()]

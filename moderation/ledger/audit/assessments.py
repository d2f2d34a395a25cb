"""Each assessment against its attempts and its verdict, by primary key: a slice is one snapshot, so nothing moves in it."""

from collections.abc import Mapping
from datetime import datetime
from uuid import UUID

from sqlalchemy import Engine, text

from moderation.ledger.audit import attempts, states, verdicts
from moderation.ledger.audit.finding import Allowance, AuditCheck, AuditFinding, Slice, snapshot

_FIRST, _LAST = UUID(int=0), UUID(int=2**128 - 1)

_CHECKS: Mapping[AuditCheck, Mapping[str, str]] = {
    AuditCheck.STATES: states.CONDITIONS,
    AuditCheck.ATTEMPTS: attempts.CONDITIONS,
    AuditCheck.CHARGES: attempts.CHARGES,
    AuditCheck.VERDICTS: verdicts.CONDITIONS,
}
_CONDITIONS = [
    (check, what, condition) for check, each in _CHECKS.items() for what, condition in each.items()
]

_UPTO = text(
    "SELECT id FROM assessment WHERE id > :after ORDER BY id OFFSET CAST(:rows AS bigint) - 1 LIMIT 1"
)
_COUNT = text("SELECT count(*) FROM assessment WHERE id > :after AND id <= :upto")

# The few at fault are found first, by all conditions at once, and named by each that is true of them.
_AT_FAULT = text(f"""
    WITH rows AS MATERIALIZED (
        SELECT * FROM assessment WHERE id > :after AND id <= :upto
    ), ended AS MATERIALIZED (
        SELECT t.assessment_id, t.attempt, t.outcome, t.error_code FROM attempt t
        WHERE t.assessment_id > :after AND t.assessment_id <= :upto
    ), failed AS (
        SELECT a.id, max(e.attempt) AS at FROM rows a JOIN ended e ON e.assessment_id = a.id
        WHERE ({attempts.FAILED_IT.format("e")}) AND NOT (a.state = 'failed' AND e.attempt = a.attempt)
        GROUP BY a.id
    ), tried AS (
        SELECT e.assessment_id AS id, count(*) AS n, min(e.attempt) AS first, max(e.attempt) AS last,
               count(*) FILTER (WHERE e.outcome = 'done') AS done,
               max(e.attempt) FILTER (WHERE e.outcome = 'done') AS done_at,
               count(*) FILTER (WHERE e.attempt > coalesce(f.at, 0) AND e.outcome NOT IN ({attempts.UNCHARGED}))
                   AS charged,
               count(*) FILTER (WHERE e.attempt > coalesce(f.at, 0) AND e.outcome = 'crashed') AS crashed
        FROM ended e LEFT JOIN failed f ON f.id = e.assessment_id GROUP BY e.assessment_id
    ), found AS (
        SELECT c.number, a.id FROM rows a
        LEFT JOIN verdict v ON v.assessment_id = a.id AND v.assessment_id > :after AND v.assessment_id <= :upto
        LEFT JOIN tried t ON t.id = a.id
        LEFT JOIN ended l ON l.assessment_id = a.id AND l.attempt = a.attempt
        LEFT JOIN policy_revision r ON r.id = a.policy_revision_id
        CROSS JOIN LATERAL (
            VALUES {", ".join(f"({n}, {one[2]})" for n, one in enumerate(_CONDITIONS))}
        ) AS c (number, at_fault)
        WHERE ({" OR ".join(f"({one[2]})" for one in _CONDITIONS)}) AND c.at_fault
        UNION ALL
        SELECT -1, v.assessment_id FROM verdict v WHERE v.assessment_id > :after AND v.assessment_id <= :upto
            AND NOT EXISTS (SELECT FROM rows a WHERE a.id = v.assessment_id)
        UNION ALL
        SELECT DISTINCT -2, e.assessment_id FROM ended e
        WHERE NOT EXISTS (SELECT FROM rows a WHERE a.id = e.assessment_id)
    )
    SELECT number, count(*) AS n, (array_agg(id::text ORDER BY id))[1:CAST(:ids AS integer)] AS ids
    FROM found GROUP BY number
""")
_STRAY = {
    -1: (AuditCheck.VERDICTS, "a verdict without an assessment"),
    -2: (AuditCheck.ATTEMPTS, "an attempt without an assessment"),
}


def since(moment: datetime) -> str:
    """The place before what was submitted from then on: ids begin with their time (UUIDv7: 48 bits of ms)."""
    return str(UUID(int=(int(moment.timestamp() * 1000) << 80) - 1))


def look(engine: Engine, place: str, allowance: Allowance) -> Slice:
    """The next assessments by id. place: the last one that was looked at; "" for none. Raises OutOfTime."""
    after = UUID(place) if place else _FIRST
    with snapshot(engine, allowance) as connection:
        upto = connection.execute(_UPTO, {"after": after, "rows": allowance.rows}).scalar()
        within = {"after": after, "upto": upto or _LAST}
        rows = allowance.rows if upto else int(connection.execute(_COUNT, within).scalar_one())
        at_fault = connection.execute(_AT_FAULT, within | {"ids": allowance.ids}).all()
    findings = [AuditFinding(*_named(row.number), row.n, tuple(row.ids)) for row in at_fault]
    return Slice(str(upto) if upto else None, rows, findings)


def _named(number: int) -> tuple[AuditCheck, str]:
    if number in _STRAY:
        return _STRAY[number]
    check, what, _ = _CONDITIONS[number]
    return check, what

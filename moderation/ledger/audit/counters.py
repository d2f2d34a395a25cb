"""Audits the tally against the rows that it counts, batch by batch. Rows without a batch are counted in one go."""

from sqlalchemy import Connection, Engine, text

from moderation.ledger.audit.finding import Allowance, AuditCheck, AuditSlice, Findings, snapshot

_NAMES_AT_ONCE = 500
_OF_NONE = ""  # the tally's name for what has no batch

_KEPT = "SELECT batch, tenant, state, n FROM tally UNION ALL SELECT batch, tenant, state, n FROM tally_change"

# From both sides, so that a batch whose count is gone is found as well; of the rows by one index step for each batch.
_NAMES = text(f"""
    WITH RECURSIVE step AS (
        (SELECT batch FROM assessment WHERE batch > :after ORDER BY batch LIMIT 1)
        UNION ALL
        SELECT (SELECT a.batch FROM assessment a WHERE a.batch > s.batch ORDER BY a.batch LIMIT 1)
        FROM step s WHERE s.batch IS NOT NULL
    ), named AS (
        (SELECT batch FROM step WHERE batch IS NOT NULL LIMIT :limit)
        UNION
        (SELECT DISTINCT batch FROM tally WHERE batch > :after ORDER BY batch LIMIT :limit)
        UNION
        (SELECT DISTINCT batch FROM tally_change WHERE batch > :after ORDER BY batch LIMIT :limit)
    ), next AS (SELECT batch FROM named ORDER BY batch LIMIT :limit)
    SELECT x.batch, greatest(coalesce(sum(k.n), 0), 0)::bigint AS rows
    FROM next x LEFT JOIN ({_KEPT}) AS k ON k.batch = x.batch GROUP BY x.batch ORDER BY x.batch
""")
_TOTAL = text(f"SELECT coalesce(sum(n), 0)::bigint FROM ({_KEPT}) AS k")

_COMPARE = """
    WITH kept AS (
        SELECT batch, tenant, state, sum(n)::bigint AS n FROM ({kept}) AS k WHERE batch = ANY(:batches) GROUP BY 1, 2, 3
    ), counted AS (
        SELECT coalesce(a.batch, '') AS batch, coalesce(a.tenant, '') AS tenant, a.state, count(*) AS n
        FROM assessment a WHERE {which} GROUP BY 1, 2, 3
    )
    SELECT batch, tenant, state, coalesce(k.n, 0) AS kept, coalesce(c.n, 0) AS counted
    FROM kept k FULL JOIN counted c USING (batch, tenant, state)
    WHERE coalesce(k.n, 0) <> coalesce(c.n, 0) ORDER BY 1, 2, 3
"""
_COMPARE_NAMED = text(_COMPARE.format(kept=_KEPT, which="a.batch = ANY(:batches)"))
_COMPARE_NONE = text(_COMPARE.format(kept=_KEPT, which="a.batch IS NULL OR a.batch = ''"))

_WHAT = "a count that is not that of its rows"


def look(engine: Engine, place: str, allowance: Allowance) -> AuditSlice:
    """The next batches by name. place: "" first, for what has no batch; then = and the last name. Raises OutOfTime."""
    with snapshot(engine, allowance) as connection:
        if not place:
            return _look_at_none(connection, allowance)
        named = connection.execute(_NAMES, {"after": place[1:], "limit": _NAMES_AT_ONCE}).all()
        chosen: list[str] = []
        rows, left_out, last = 0, 0, None
        for batch, count in named:
            if chosen and rows + count > allowance.rows:
                break
            last = batch
            if count > allowance.heavy:
                left_out += 1
                continue
            chosen.append(batch)
            rows += count
        findings = Findings(ids=allowance.ids)
        if chosen:
            _compare(connection, chosen, findings)
    is_last = last is None or (last == named[-1].batch and len(named) < _NAMES_AT_ONCE)
    return AuditSlice(None if is_last else f"={last}", rows, findings.all(), left_out)


def _look_at_none(connection: Connection, allowance: Allowance) -> AuditSlice:
    """No index finds what has no batch, so the whole table is read."""
    total = int(connection.execute(_TOTAL).scalar_one())
    if total > allowance.heavy:
        return AuditSlice("=", 0, left_out=1)
    findings = Findings(ids=allowance.ids)
    _compare(connection, [_OF_NONE], findings)
    return AuditSlice("=", 0, findings.all())


def _compare(connection: Connection, batches: list[str], findings: Findings) -> None:
    statement = _COMPARE_NONE if batches == [_OF_NONE] else _COMPARE_NAMED
    for row in connection.execute(statement, {"batches": batches}):
        named = [f"batch {row.batch}"] if row.batch else ["no batch"]
        named += [f"tenant {row.tenant}"] if row.tenant else []
        findings.note(
            AuditCheck.COUNTERS,
            _WHAT,
            f"{', '.join(named)}, {row.state}: counted as {row.kept}, there are {row.counted}",
        )

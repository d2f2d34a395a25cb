"""Audits the places of consumers and webhooks, and what webhooks set aside, against the verdicts."""

from sqlalchemy import Engine, text

from moderation.ledger.audit.finding import Allowance, AuditCheck, AuditSlice, Findings, cut_off, snapshot
from moderation.ledger.verification import PlaceFinding as Verified
from moderation.ledger.verification import Verification, verify_places

# What one place may have moved over since it was last found whole: some seconds. `vetline consumer verify` has no limit.
_MOST_ROWS = 2_000_000

# A place is one that somebody has read up to, so the ledger has come to it; on a replica it may be ahead.
_AHEAD = text("""
    WITH newest AS (
        SELECT epoch FROM feed_epoch ORDER BY epoch DESC LIMIT 1
    ), places AS (
        SELECT 'consumer ' || name AS who, epoch, xid FROM consumer
        UNION ALL SELECT 'webhook ' || name, epoch, xid FROM webhook
    )
    SELECT p.who FROM places p, newest n
    WHERE NOT pg_is_in_recovery()
        AND (p.epoch > n.epoch OR (p.epoch = n.epoch AND p.xid > pg_snapshot_xmax(pg_current_snapshot())))
    ORDER BY p.who
""")

_SET_ASIDE = text("""
    SELECT w.name, s.assessment_id FROM webhook_set_aside s LEFT JOIN webhook w ON w.id = s.webhook_id
    WHERE NOT EXISTS (SELECT FROM verdict v WHERE v.assessment_id = s.assessment_id)
    ORDER BY w.name, s.assessment_id
""")

_COUNT = text("""
    SELECT (SELECT count(*) FROM consumer) + (SELECT count(*) FROM webhook) + (SELECT count(*) FROM webhook_set_aside)
""")

_BREACHES = {
    Verified.MISSING: "fewer verdicts were given out than exist",
    Verified.EXCESS: "more verdicts were given out than exist",
}


def look(engine: Engine, place: str, allowance: Allowance) -> AuditSlice:
    """All of them at once: there are few. Raises OutOfTime."""
    findings = Findings(ids=allowance.ids)
    with snapshot(engine, allowance) as connection:
        rows = int(connection.execute(_COUNT).scalar_one())
        for (who,) in connection.execute(_AHEAD):
            findings.note(AuditCheck.DELIVERIES, "a place that the feed has not come to", who)
        for name, id_ in connection.execute(_SET_ASIDE):
            findings.note(
                AuditCheck.DELIVERIES, "set aside, and there is no verdict", f"{id_} (webhook {name})"
            )
    with cut_off():
        verified = verify_places(
            engine, limit_rows=min(allowance.heavy, _MOST_ROWS), checkpoint=allowance.checkpoint
        )
    for one in verified:
        if one.breach:
            findings.note(AuditCheck.DELIVERIES, _BREACHES[one.finding], _detail(one))
    uncounted = sum(one.finding is Verified.UNCOUNTED for one in verified)
    return AuditSlice(None, rows, findings.all(), uncounted)


def _detail(one: Verification) -> str:
    return (
        f"{one.kind} {one.name}: {one.given} given out, {one.exist} exist, from {one.verified} to {one.place}"
    )

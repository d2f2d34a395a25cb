"""States against what proves them: an open row has a ring or a lease, an ended one its time, a failed one its code.

Each is SQL that is true of a row at fault. a: its assessment. v: its verdict. r: its policy revision.
"""

_ENDED = "a.state IN ('done', 'failed', 'cancelled')"

CONDITIONS = {
    "done without a verdict": "a.state = 'done' AND v.assessment_id IS NULL",
    "not done, with a verdict": "a.state <> 'done' AND v.assessment_id IS NOT NULL",
    "queued, and nothing will ring it": "a.state = 'queued' AND a.ring_at IS NULL AND a.rung_at IS NULL",
    "not queued, and to be rung": "a.state <> 'queued' AND (a.ring_at IS NOT NULL OR a.rung_at IS NOT NULL)",
    "running without a lease": "a.state = 'running' AND a.lease_until IS NULL",
    "not running, with a lease": "a.state <> 'running' AND a.lease_until IS NOT NULL",
    "running, claimed by nobody": (
        "a.state = 'running' AND (a.worker IS NULL OR a.claimed_at IS NULL OR a.attempt < 1)"
    ),
    "failed without a code": "a.state = 'failed' AND a.error_code IS NULL",
    "done, with the code of an error": "a.state = 'done' AND a.error_code IS NOT NULL",
    "ended without a time": f"{_ENDED} AND a.ended_at IS NULL",
    "open, with the time of an end": f"NOT ({_ENDED}) AND a.ended_at IS NOT NULL",
    "under a revision of another policy, or of none": "r.policy IS DISTINCT FROM a.policy",
}

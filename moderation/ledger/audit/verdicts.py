"""Verdicts against the attempts, revisions and verdicts that they rest on.

Each is SQL that is true of a row at fault. a: its assessment. v: its verdict. t: its attempts, summed up.
"""

CONDITIONS = {
    "a verdict of an attempt that was not done": (
        "v.assessment_id IS NOT NULL AND v.attempt IS DISTINCT FROM t.done_at"
    ),
    "a verdict under another revision": "v.policy_revision_id <> a.policy_revision_id",
    "reused from what has no verdict": (
        "v.reused_from IS NOT NULL AND NOT EXISTS (SELECT FROM verdict o WHERE o.assessment_id = v.reused_from)"
    ),
}

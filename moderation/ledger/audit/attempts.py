"""Attempts against the fence, and against what was charged.

A retry begins both counts anew, and leaves no row of its own: an attempt that ended the assessment says where. So the
counts are those of the attempts after the last one that failed it, or up to that one while it stands failed.

Each is SQL that is true of a row at fault. a: its assessment. t: its attempts, summed up. l: that of its fence.
"""

# A sweep that frees the tenth claim of a dead worker ends the assessment, as a failure does.
FAILED_IT = "{0}.outcome = 'failed' OR {0}.outcome = 'crashed' AND {0}.error_code = 'poison'"
# Ended by a stop, an unavailable service, or a death, which is counted apart.
UNCHARGED = "'given_back', 'crashed', 'cancelled'"

_LIVE = "(a.state = 'running')::integer"  # the attempt under way has no row yet

CONDITIONS = {
    "attempts not numbered from 1 without a gap": "t.last <> t.n OR t.first <> 1",
    "another number of attempts than its fence says": f"coalesce(t.last, 0) <> a.attempt - {_LIVE}",
    "done, and its last attempt was not": "a.state = 'done' AND l.outcome IS DISTINCT FROM 'done'",
    "failed, and its last attempt had not failed it": (
        f"a.state = 'failed' AND NOT coalesce({FAILED_IT.format('l')}, false)"
    ),
    "an attempt was done, and it is not": "t.done > 0 AND a.state <> 'done'",
    "more than one attempt was done": "t.done > 1",
}

CHARGES = {
    "charged otherwise than its attempts say": f"a.charged <> coalesce(t.charged, 0) + {_LIVE}",
    "crashes otherwise than its attempts say": "a.crashes <> coalesce(t.crashed, 0)",
}

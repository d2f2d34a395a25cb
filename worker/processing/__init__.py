"""From a claim to its outcome: claim, fetch, decode, judge, record."""

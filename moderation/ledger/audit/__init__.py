"""The audit: reconciles the ledger with itself, a slice at a time. It reads in two ways what should agree, and compares.

    assessments   states, attempts, charges and verdicts of each assessment, by primary key
    feed          every verdict, found by primary key, is given out by the feed's own reader, in order
    counters      the tally against the rows that it counts
    deliveries    places of consumers and webhooks, and what was set aside, against the verdicts

`run` goes through all of it in bounded time. `turn` does a part of it each minute, in a worker.
"""

"""The audit: the ledger reconciled with itself, a slice at a time. What should agree is read in two ways and compared.

    assessments   states, attempts, charges and verdicts of each assessment, by primary key
    feed          every verdict, found by primary key, is given out by the feed's own reader, in order
    counters      the tally against the rows that it counts
    deliveries    places of consumers and webhooks, and what was set aside, against the verdicts

`run` goes through all of it in bounded time; `turn` does a part of it each minute, in a worker.
"""

"""What the queue costs: submissions, assessments, latency, many runtimes, and a ledger that grows. See __main__.py."""

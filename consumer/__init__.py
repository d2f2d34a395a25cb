"""Who reads verdicts: evaluation, and whatever else comes after the ledger."""

"""Commands that read verdicts."""

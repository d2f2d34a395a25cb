"""The commands of those who read verdicts."""

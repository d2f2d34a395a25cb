"""Upgrades a database and a queue of an earlier release with work under way, and counts what came of it."""

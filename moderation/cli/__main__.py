"""`python -m moderation.cli` is `vetline`."""

from moderation.cli import run

run()

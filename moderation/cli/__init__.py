"""The command `vetline`. Each package brings its own commands, by entry points: none imports another to show them."""

from moderation.cli.main import main

__all__ = ["main"]

"""`python -m moderation.cli` is `vetline`."""

from moderation.cli.main import main

main()

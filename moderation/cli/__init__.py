"""The command `vetline`. Each package brings its own commands, by entry points: none imports another to show them."""

import sys


def run() -> None:
    """Entry of the console script. Everything is loaded in here, so that Ctrl-C while it loads is no traceback."""
    try:
        from moderation.cli.main import main

        main()
    except KeyboardInterrupt:
        sys.stderr.write("vetline: interrupted\n")
        sys.exit(130)

"""The command `vetline`. `table` names the commands of all packages, and one's module is loaded when it is called."""

import sys


def run() -> None:
    """Entry of the console script. Everything is loaded in here, so that Ctrl-C while it loads is no traceback."""
    try:
        from moderation.cli.main import main

        main()
    except KeyboardInterrupt:
        sys.stderr.write("vetline: interrupted\n")
        sys.exit(130)  # moderation.exit_codes.INTERRUPTED: loading it may be what was interrupted

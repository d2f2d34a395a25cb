"""Runs the command that was typed, and turns what goes wrong into one clear line and an exit code.

What each code says stands in `moderation.exit_codes`.
"""

import os
import sys

import typer

from moderation.cli.extras import EXTRAS
from moderation.cli.lazy import LazyGroup
from moderation.cli.table import COMMANDS
from moderation.errors import Misuse, Unavailable, VetlineError
from moderation.exit_codes import FAILED, INTERRUPTED, MISUSE, SERVICE_DOWN
from moderation.log import configure_logging, configure_when_used
from moderation.safe_text import for_terminal

COMPLETING = "_VETLINE_COMPLETE"  # set where a shell asks what may come next


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        sys.stdout.write(f"vetline {version('vetline')}\n")
        raise typer.Exit


def command_line() -> typer.Typer:
    """`vetline`, with every command of the table; none of them is loaded yet."""
    app = typer.Typer(
        name="vetline",
        cls=LazyGroup,
        help="Run images past a safety policy, and lose none.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )

    @app.callback()
    def root(
        context: typer.Context,
        shown: bool = typer.Option(
            False, "--version", callback=_version, is_eager=True, help="Show the version."
        ),
    ) -> None:
        # A worker's modules log by structlog itself; what the others need of it is loaded with their first event.
        called = COMMANDS.get(context.invoked_subcommand or "")
        if called and called.app.startswith("worker."):
            configure_logging()
        else:
            configure_when_used()

    return app


def main() -> None:
    """Run the command that was typed, and exit with its code."""
    if COMPLETING in os.environ:
        from typer._completion_classes import completion_init

        completion_init()
    try:
        command_line()(prog_name="vetline")
        code = 0
    except SystemExit as exc:
        # Ctrl-C reaches us as Typer's Abort, and a reader who left as a broken pipe; it ends both with code 1.
        if isinstance(exc.__context__, BrokenPipeError):
            code = _nobody_reads()
        elif isinstance(exc.__context__, typer.Abort):
            code = INTERRUPTED
        else:
            code = exc.code if isinstance(exc.code, int) else 0
    except Misuse as exc:
        code = _say(str(exc), MISUSE)
    except Unavailable as exc:
        code = _say(str(exc), SERVICE_DOWN)
    except VetlineError as exc:
        code = _say(str(exc), FAILED)
    except ModuleNotFoundError as exc:
        extra = EXTRAS.get(exc.name or "")
        if extra is None:
            raise
        code = _say(f"{exc.name} is not installed: pip install 'vetline[{extra}]'", MISUSE)
    except BrokenPipeError:
        code = _nobody_reads()
    sys.exit(code)


def _nobody_reads() -> int:
    """`vetline verdicts | head`: the reader has seen enough, and what is left in the buffer is for nobody."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _say(line: str, code: int) -> int:
    sys.stderr.write(f"vetline: {for_terminal(line, lines=True)}\n")
    return code

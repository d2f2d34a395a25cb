"""Gathers the commands, runs one, and turns what goes wrong into one clear line and a documented exit code.

0 done, 1 failed, 2 misuse, 3 some items failed, 4 unsafe found where --fail-on unsafe asked, 75 a service is down,
130 interrupted.
"""

import os
import sys
from importlib.metadata import entry_points, version

import typer

from moderation.errors import Misuse, Unavailable, VetlineError
from moderation.log import configure_logging

FAILED, MISUSE, SOME_FAILED, UNSAFE_FOUND, SERVICE_DOWN, INTERRUPTED = 1, 2, 3, 4, 75, 130


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"vetline {version('vetline')}")
        raise typer.Exit


def gather() -> typer.Typer:
    """All commands of the installed packages, in the order of their entry points' names."""
    app = typer.Typer(
        name="vetline",
        help="Run images past a safety policy, and lose none.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )

    @app.callback()
    def root(
        shown: bool = typer.Option(
            False, "--version", callback=_version, is_eager=True, help="Show the version."
        ),
    ) -> None:
        configure_logging()

    for point in sorted(entry_points(group="vetline.commands"), key=lambda p: p.name):
        commands: typer.Typer = point.load()
        app.registered_commands += commands.registered_commands
        app.registered_groups += commands.registered_groups
    return app


def main() -> None:
    """Run the command that was typed, and exit with its code."""
    try:
        gather()()
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
    except BrokenPipeError:
        code = _nobody_reads()
    sys.exit(code)


def _nobody_reads() -> int:
    """`vetline verdicts | head`: the reader has seen enough, and what is left in the buffer is for nobody."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _say(line: str, code: int) -> int:
    typer.echo(f"vetline: {line}", err=True)
    return code

"""`vetline completion`: what a shell is told, so that it completes commands and options."""

from enum import StrEnum
from typing import Annotated

import typer
from typer._completion_shared import get_completion_script

from moderation.cli.main import COMPLETING
from moderation.cli.output import say

commands = typer.Typer()


class Shell(StrEnum):
    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


@commands.command()
def completion(
    shell: Annotated[Shell, typer.Argument(metavar="SHELL", help="The shell that is to complete.")],
) -> None:
    """Print a completion script for bash, zsh or fish.

    bash, in ~/.bashrc: eval "$(vetline completion bash)"

    zsh, in ~/.zshrc behind compinit: eval "$(vetline completion zsh)"

    fish, in ~/.config/fish/config.fish: vetline completion fish | source
    """
    say(get_completion_script(prog_name="vetline", complete_var=COMPLETING, shell=shell.value))

"""The root of the command line: it knows the commands by their table, and loads the one that is called."""

import gc
from collections.abc import Iterator, MutableMapping
from importlib import import_module
from typing import Any

from typer import Typer

# Typer carries its own copy of Click, and these are the types of what it lets one override.
from typer._click import Command, Context, HelpFormatter
from typer._click.shell_completion import CompletionItem
from typer.core import TyperGroup
from typer.main import get_group_from_info
from typer.models import TyperInfo

from moderation.cli.help import HelpfulCommand
from moderation.cli.table import COMMANDS, GROUPS, Listed


class LazyGroup(TyperGroup):
    """The commands of the table. Help and completion load none of them."""

    def __init__(self, **attrs: Any) -> None:
        super().__init__(**attrs | {"commands": _Commands()})

    def list_commands(self, ctx: Context) -> list[str]:
        return list(self.commands)

    def format_commands(self, ctx: Context, formatter: HelpFormatter) -> None:
        width = max(map(len, COMMANDS))
        for title, group in GROUPS.items():
            with formatter.section(title):
                formatter.write_dl([(listed.name.ljust(width), listed.help) for listed in group])

    def shell_complete(self, ctx: Context, incomplete: str) -> list[CompletionItem]:
        matching = [listed for listed in COMMANDS.values() if listed.name.startswith(incomplete)]
        options = super(TyperGroup, self).shell_complete(ctx, incomplete)
        return [CompletionItem(listed.name, help=listed.help) for listed in matching] + options


class _Commands(MutableMapping[str, Command]):
    """Commands by name, loaded when they are asked for. Typer looks for what is spelled nearly so among the names."""

    def __init__(self) -> None:
        self._added: dict[str, Command] = {}

    def __getitem__(self, name: str) -> Command:
        if name not in self._added:
            self._added[name] = load(COMMANDS[name])
        return self._added[name]

    def __setitem__(self, name: str, command: Command) -> None:
        self._added[name] = command

    def __delitem__(self, name: str) -> None:
        del self._added[name]

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)


def load(listed: Listed) -> Command:
    """The command itself, from its module. Raises ModuleNotFoundError where something that it needs is not installed."""
    module, _, attribute = listed.app.partition(":")
    # What is loaded stays until the end: looking through it for garbage, again and again, is a tenth of the time.
    gc.disable()
    try:
        app: Typer = getattr(import_module(module), attribute)
        # Plain text: it needs no rich, which takes longer to load than the rest of the help.
        _choose_help(app)
        group = get_group_from_info(
            TyperInfo(app), pretty_exceptions_short=True, suggest_commands=True, rich_markup_mode=None
        )
        gc.freeze()
    finally:
        gc.enable()
    return group.commands[listed.name]


def _choose_help(app: Typer) -> None:
    """One look for all commands, those of groups too."""
    for command in app.registered_commands:
        command.cls = HelpfulCommand
    for group in app.registered_groups:
        if group.typer_instance is not None:
            _choose_help(group.typer_instance)

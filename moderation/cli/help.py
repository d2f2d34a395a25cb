"""How a command's own help looks: its options in the sections that they name, as plain text."""

import re

from typer._click import Context, HelpFormatter, Parameter
from typer.core import TyperCommand

_MANY = re.compile(r"<list\[([^\]]+)\]>")
_TYPES = {"<str>": "<text>", "<int>": "<number>", "<float>": "<number>"}


class HelpfulCommand(TyperCommand):
    """A command whose options may stand in sections, by their `rich_help_panel`."""

    def format_options(self, ctx: Context, formatter: HelpFormatter) -> None:
        sections: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
        for param in self.get_params(ctx):
            if record := param.get_help_record(ctx):
                name, text = record
                sections.setdefault(_section(param), []).append((_plain_type(name), text))
        for title, rows in sections.items():
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)


def _section(param: Parameter) -> str:
    named: str | None = getattr(param, "rich_help_panel", None)
    return named or ("Arguments" if param.param_type_name == "argument" else "Options")


def _plain_type(name: str) -> str:
    """What one value is, without Python's name for it; that it may be repeated is for the help to say."""
    name = _MANY.sub(r"<\1>", name).replace(" range>", ">")
    for ours, plain in _TYPES.items():
        name = name.replace(ours, plain)
    return name

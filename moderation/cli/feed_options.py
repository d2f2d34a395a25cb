"""Options and words that `vetline feed`, `consumer` and `webhook` share."""

from typing import Annotated, Any

import typer

After = Annotated[str | None, typer.Option(help="Begin behind this cursor, or `now`; else at the first.")]
Category = Annotated[str | None, typer.Option(help="Only this category, by its id, such as O4.")]
Unsafe = Annotated[bool, typer.Option("--unsafe", help="Only what is rated Unsafe.")]
Name = Annotated[str, typer.Argument(metavar="NAME")]


def shown_filter(row: dict[str, Any]) -> str:
    return ", ".join(row["filter"].values()) or "everything"

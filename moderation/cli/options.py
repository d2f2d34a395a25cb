"""Options that several commands share."""

from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="JSON on stdout.")]
Batch = Annotated[str | None, typer.Option(help="Only this batch.")]
Policy = Annotated[str | None, typer.Option(help="Only this policy id.")]
Tenant = Annotated[str | None, typer.Option(help="Only this tenant.")]

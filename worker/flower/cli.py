"""`vetline flower`."""

from pathlib import Path
from typing import Annotated

import typer

from moderation.settings import ServiceSettings

commands = typer.Typer()


@commands.command()
def flower(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Where the pages are served.")] = 5555,
    address: Annotated[
        str, typer.Option(help="Another than loopback needs FLOWER_BASIC_AUTH=user:password.")
    ] = "127.0.0.1",
    control: Annotated[
        bool, typer.Option("--control", help="May stop workers and revoke tasks; needs FLOWER_BASIC_AUTH.")
    ] = False,
    state: Annotated[
        Path | None, typer.Option(help="Where it remembers tasks. Default: flower/state in VETLINE_DATA_DIR.")
    ] = None,
    forget: Annotated[bool, typer.Option("--forget", help="Remember nothing over a restart.")] = False,
) -> None:
    """Serve Flower, read-only: tasks as images and policies.

    Each task links to the story of its assessment.
    """
    # Loaded here, not for this command's --help.
    from moderation.ledger.engine import open_ledger
    from moderation.services.resolve import resolve
    from worker.broker.factory import make_worker_app
    from worker.flower.serve import FlowerOptions, serve

    kept = None if forget else state or ServiceSettings().data_dir / "flower" / "state"
    with resolve(need_redis=True) as services:
        app = make_worker_app(services.database_url, services.redis_url)
        serve(app, open_ledger(services.database_url), FlowerOptions(address, port, kept, control))

"""`vetline worker`: judge what is due, in the foreground."""

from typing import Annotated

import typer
from pydantic import ValidationError

from moderation.cli.opening import check_tables
from moderation.errors import BadSetting
from moderation.ledger.engine import open_ledger
from moderation.services.desk import resolve

commands = typer.Typer()


@commands.command()
def worker(
    judge: Annotated[str | None, typer.Option(help="sglang or open-nsfw. [VETLINE_WORKER_JUDGE]")] = None,
    concurrency: Annotated[int | None, typer.Option(min=1, help="Images in hand at once.")] = None,
    name: Annotated[str | None, typer.Option(help="Shown in Flower and kept with each attempt.")] = None,
    sglang_url: Annotated[str | None, typer.Option(help="An SGLang server that runs already.")] = None,
) -> None:
    """Claim, fetch, decode, judge and record, until SIGTERM; then finish what is in hand."""
    # Celery and the judges are loaded here, not when `vetline --help` is asked for.
    from worker.assembly import assemble
    from worker.settings import WorkerSettings

    given = {"judge": judge, "concurrency": concurrency, "name": name, "sglang_url": sglang_url}
    try:
        settings = WorkerSettings.model_validate(
            WorkerSettings().model_dump() | {k: v for k, v in given.items() if v is not None}
        )
    except ValidationError as exc:
        first = exc.errors(include_url=False)[0]
        raise BadSetting(f"{first['loc'][0]}: {first['msg']}") from None
    with resolve(need_redis=True) as services:
        engine = open_ledger(services.database_url)
        check_tables(engine)
        engine.dispose()
        app = assemble(services.database_url, services.redis_url, settings)
        # Gossip costs the square of the number of workers, and nothing here listens to it.
        celery_worker = app.Worker(
            hostname=settings.node, quiet=True, without_gossip=True, without_mingle=True, loglevel="INFO"
        )
        celery_worker.start()
        raise typer.Exit(celery_worker.exitcode or 0)

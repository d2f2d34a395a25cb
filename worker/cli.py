"""`vetline worker`, and all of it on one machine: `vetline up`, `vetline demo`, `vetline doctor`."""

from pathlib import Path
from typing import Annotated

import typer

commands = typer.Typer()


@commands.command()
def worker(
    judge: Annotated[str | None, typer.Option(help="sglang or open-nsfw. [VETLINE_WORKER_JUDGE]")] = None,
    concurrency: Annotated[int | None, typer.Option(min=1, help="Images in hand at once.")] = None,
    name: Annotated[str | None, typer.Option(help="Shown in Flower and kept with each attempt.")] = None,
    sglang_url: Annotated[
        list[str] | None, typer.Option(help="An SGLang server that runs already; may be repeated.")
    ] = None,
    gpus: Annotated[
        str | None, typer.Option(help="`all`, or numbers such as 0,1: a worker with its own SGLang for each.")
    ] = None,
) -> None:
    """Run a worker: claim, fetch, decode, judge and record.

    It runs until SIGTERM or Ctrl-C, and finishes what is in hand before it ends.
    """
    # Loaded here, as the other commands of this file need none of it; worker-status is asked every few seconds.
    from pydantic import ValidationError

    from moderation.cli.open_ledger import check_tables
    from moderation.errors import BadSetting
    from moderation.ledger.engine import open_ledger
    from moderation.services.resolve import resolve
    from worker.broker.factory import make_worker_app
    from worker.gpu.devices import chosen
    from worker.host.fleet import run_fleet
    from worker.runtime.preflight import preflight
    from worker.settings import WorkerSettings

    options = {"judge": judge, "concurrency": concurrency, "name": name, "sglang_url": sglang_url}
    try:
        settings = WorkerSettings.model_validate(
            WorkerSettings().model_dump() | {k: v for k, v in options.items() if v}
        )
    except ValidationError as exc:
        first = exc.errors(include_url=False)[0]
        raise BadSetting(f"{first['loc'][0]}: {first['msg']}") from None
    on_gpus = chosen(gpus) if gpus is not None else []
    preflight(settings)
    with resolve(need_redis=True) as services:
        engine = open_ledger(services.database_url)
        check_tables(engine)
        engine.dispose()
        if on_gpus:
            raise typer.Exit(run_fleet(services, on_gpus, settings))
        app = make_worker_app(services.database_url, services.redis_url, settings)
        # Gossip costs the square of the number of workers, and nothing here listens to it.
        celery_worker = app.Worker(
            hostname=settings.node, quiet=True, without_gossip=True, without_mingle=True, loglevel="INFO"
        )
        celery_worker.start()
        raise typer.Exit(celery_worker.exitcode or 0)


@commands.command()
def worker_status(
    port: Annotated[int | None, typer.Option(help="Ask the worker that answers there.")] = None,
    live: Annotated[
        bool, typer.Option("--live", help="Only whether each is well, whatever it waits for.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="JSON on stdout.")] = False,
) -> None:
    """Ask the workers here whether they are ready.

    Exit code 0: ready. 75: waiting for something, such as SGLang. 1: not well, or no worker runs here.
    """
    from worker.health.status_command import worker_status as run

    raise typer.Exit(run(port=port, live_only=live, as_json=as_json))


@commands.command()
def up(
    judge: Annotated[str | None, typer.Option(help="sglang or open-nsfw. [VETLINE_WORKER_JUDGE]")] = None,
    concurrency: Annotated[int | None, typer.Option(min=1, help="Images in hand at once.")] = None,
    sglang_url: Annotated[
        list[str] | None, typer.Option(help="An SGLang server that runs already; may be repeated.")
    ] = None,
    flower: Annotated[bool, typer.Option(help="Run Flower too.")] = True,
    flower_port: Annotated[
        int | None, typer.Option(help="Where Flower listens on loopback; 5555 if free.")
    ] = None,
) -> None:
    """Run Postgres, Redis, a worker and Flower here.

    A service that DATABASE_URL or REDIS_URL names is used instead of one of its own. Ctrl-C ends all of it.
    """
    from worker.host.up import up as run

    forwarded = {"--judge": judge, "--concurrency": concurrency}
    options = [word for flag, value in forwarded.items() if value is not None for word in (flag, str(value))]
    options += [word for url in sglang_url or () for word in ("--sglang-url", url)]
    raise typer.Exit(run(worker_options=options, flower=flower, flower_port=flower_port))


@commands.command()
def demo(
    samples: Annotated[
        Path, typer.Argument(metavar="SAMPLES", help="A folder of images, or one image.")
    ] = Path("samples"),
) -> None:
    """Judge sample images here with the small CPU judge.

    Prints a verdict for each image, and needs no GPU.
    """
    from worker.host.demo import demo as run

    raise typer.Exit(run(samples))


@commands.command()
def doctor(
    worker: Annotated[
        bool, typer.Option("--worker", help="Only whether a worker is at work here; for health checks.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="JSON on stdout.")] = False,
) -> None:
    """Check this machine, its services and its settings.

    Prints a line for each check. Exit code 1 where there is a problem.
    """
    from worker.doctor.command import doctor as run

    raise typer.Exit(run(worker_only=worker, as_json=as_json))

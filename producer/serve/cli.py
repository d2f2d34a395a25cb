"""`vetline serve` and `vetline token`. FastAPI is loaded when the API opens, and not before."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from moderation.cli.open_ledger import check_tables
from moderation.cli.output import talk
from moderation.errors import BadSetting
from moderation.ledger.engine import open_ledger
from moderation.services.resolve import resolve
from producer.serve.settings import ServeSettings
from producer.serve.tokens import Role, Tokens, issue

commands = typer.Typer()
File = Annotated[Path | None, typer.Option(help="The file of tokens; VETLINE_SERVE_TOKENS.")]


@commands.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Where to listen; 127.0.0.1.")] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="8700; 0 takes any that is free.")
    ] = None,
    tokens: File = None,
    metrics_port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Serve /metrics there; it asks for no token.")
    ] = None,
    metrics_address: Annotated[str | None, typer.Option(help="Where /metrics is served; 127.0.0.1.")] = None,
    no_tokens: Annotated[
        bool, typer.Option("--no-tokens", help="Let in whoever is on this machine; on loopback only.")
    ] = False,
) -> None:
    """Take submissions over HTTP, from services in any language.

    /docs on that port describes what it takes.
    """
    options = {
        "host": host, "port": port, "tokens": tokens,
        "metrics_port": metrics_port, "metrics_address": metrics_address,
    }  # fmt: skip
    settings = ServeSettings().model_copy(update={name: v for name, v in options.items() if v is not None})
    known_tokens = _tokens(settings, no_tokens=no_tokens)
    try:
        from producer.serve import app, server
    except ImportError as exc:
        raise BadSetting(f"the HTTP API needs {exc.name}: pip install 'vetline[serve]'") from None
    listener = server.bound_socket(settings.host, settings.port)
    with listener, resolve(need_redis=True) as services:
        if known_tokens is None and not server.is_loopback(listener):
            raise BadSetting(f"--no-tokens is for loopback, and {settings.host} is not")
        _check(services.database_url)
        backend = app.ApiBackend(services.database_url, services.redis_url, known_tokens, settings)
        if settings.metrics_port is not None:
            bound_port = server.serve_metrics(settings.metrics_address, settings.metrics_port)
            talk(f"metrics: http://{settings.metrics_address}:{bound_port}/metrics")
        talk(f"listening on http://{settings.host}:{listener.getsockname()[1]}")
        server.serve(
            app.guarded(app.make_app(backend), settings, loopback_only=known_tokens is None), listener
        )


@commands.command()
def token(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Who will hold it.")],
    role: Annotated[Role, typer.Option(help="submit, read, or admin for both.")],
    file: File = None,
) -> None:
    """Make a token for a client of `vetline serve`.

    The token is printed once. Its digest is added to the file.
    """
    path = file or ServeSettings().tokens
    if path is None:
        raise BadSetting("which file? --file FILE or VETLINE_SERVE_TOKENS")
    made = issue(path, name, role)
    sys.stdout.write(made + "\n")
    talk(f"{name} may {role}; {path} holds its digest, and nothing holds the token")


def _tokens(settings: ServeSettings, *, no_tokens: bool) -> Tokens | None:
    if no_tokens:
        return None
    if settings.tokens is None:
        raise BadSetting(
            "no tokens: make one with `vetline token NAME --role submit --file FILE`, then --tokens FILE"
        )
    return Tokens(settings.tokens)


def _check(database_url: str) -> None:
    engine = open_ledger(database_url)
    try:
        check_tables(engine)
    finally:
        engine.dispose()

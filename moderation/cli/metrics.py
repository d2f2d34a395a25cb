"""`vetline metrics`: the ledger's numbers over HTTP, for Prometheus. One for an installation."""

import sys
from typing import Annotated

import typer

commands = typer.Typer()


@commands.command()
def metrics(
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Where /metrics is served; 0 picks one.")
    ] = 9464,
    address: Annotated[
        str, typer.Option(help="Loopback, unless told: /metrics has no password.")
    ] = "127.0.0.1",
    once: Annotated[bool, typer.Option("--once", help="Print them and end.")] = False,
) -> None:
    """Serve the ledger's metrics for Prometheus.

    It runs until SIGTERM or Ctrl-C. docs/metrics.md says what each metric means.
    """
    # Loaded here, not for this command's --help.
    from prometheus_client import CollectorRegistry, generate_latest, start_http_server

    from moderation.cli.open_ledger import check_tables
    from moderation.cli.output import talk
    from moderation.doorbell import Doorbell
    from moderation.ledger.engine import open_ledger
    from moderation.ledger.gauge_poller import GaugePoller
    from moderation.ledger_collector import LedgerCollector
    from moderation.plain_queue import PlainQueue
    from moderation.services.resolve import resolve

    with resolve(need_redis=True) as services:
        engine = open_ledger(services.database_url)
        check_tables(engine)
        watch = GaugePoller(engine)
        registry = CollectorRegistry()
        registry.register(
            LedgerCollector(watch, Doorbell(services.redis_url), PlainQueue(services.redis_url))
        )
        if once:
            watch.read()
            sys.stdout.write(generate_latest(registry).decode())
            return
        watch.start()
        server, thread = start_http_server(port, address, registry)
        talk(f"metrics: http://{address}:{server.server_port}/metrics")
        thread.join()  # until SIGTERM or Ctrl-C: nothing here would be lost

"""Runs Flower on our terms: loopback, read-only, remembering, and showing images rather than ids."""

import atexit
import ipaddress
import logging
import signal
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from celery import Celery
from celery.events.state import State
from flower.app import Flower
from flower.command import apply_env_options, extract_settings, setup_logging, sigterm_handler
from flower.inspector import Inspector
from flower.options import options
from flower.urls import settings
from flower.utils import broker
from flower.views import monitor
from sqlalchemy import Engine
from tornado.web import authenticated, url

from moderation.broker import quiet
from moderation.errors import BadSetting
from worker.flower.explain_page import ExplainPage, Templates
from worker.flower.task_format import COLUMNS, format_task

_MAX_TASKS = 10_000  # 5 KB each were measured; Flower's own default would take half a gigabyte
_SAVE_EVERY_MS = 60_000
_NOBODY_ANSWERED = "Inspect method %s failed"  # without a reason, which Flower's other complaints have
_FORGET_WORKERS_S = 600  # a worker's name holds its pid, so each start is another


@dataclass(frozen=True, slots=True)
class FlowerOptions:
    """Where Flower listens, what it remembers in, and whether it may stop workers and revoke tasks."""

    address: str
    port: int
    state: Path | None  # None: it forgets when it ends
    control: bool = False


class Metrics(monitor.Metrics):  # type: ignore[misc]  # Flower has no types
    """Flower's own, which it answers to anybody, for who may see its pages. /healthcheck stays open: it says OK."""

    @authenticated
    async def get(self) -> None:
        await super().get()


def serve(app: Celery, engine: Engine, place: FlowerOptions) -> None:
    """Until SIGTERM. FLOWER_* settings hold, above ours. Raises BadSetting where anybody could reach or command it."""
    _set(place)
    apply_env_options()
    _check()
    extract_settings()
    setup_logging()
    _hush()
    settings["template_loader"] = Templates(settings["template_path"])
    server = Flower(capp=app, options=options, **settings)
    logging.getLogger(Inspector.__module__).addFilter(partial(is_news, server.events.state))
    prefix = f"/{options.url_prefix.strip('/')}" if options.url_prefix else ""
    ours = [
        url(rf"{prefix}/explain/(.+)", ExplainPage, {"engine": engine}, name="explain"),
        url(rf"{prefix}/metrics", Metrics),
    ]
    server.add_handlers(".*", ours)  # which come before Flower's own
    atexit.register(server.stop)  # which saves what it remembers
    signal.signal(signal.SIGTERM, sigterm_handler)
    server.start_http_server()
    server.start()


def is_news(state: State, record: logging.LogRecord) -> bool:
    """Whether Flower's complaint that nobody answered says anything: it asks before the first worker has started.

    state: Celery's, whose workers hold when their last heartbeats came.
    """
    asked_at = (
        time.time() - 2 * options.inspect_timeout / 1000
    )  # it waits so long, and its threads are not at once
    return record.msg != _NOBODY_ANSWERED or any(
        worker.heartbeats[0] < asked_at for worker in state.alive_workers()
    )


def _set(place: FlowerOptions) -> None:
    options.address, options.port = place.address, place.port
    options.read_only = not place.control
    options.persistent = place.state is not None
    if place.state is not None:
        place.state.parent.mkdir(parents=True, exist_ok=True)
        options.db = str(place.state)
        options.state_save_interval = _SAVE_EVERY_MS
    options.max_tasks = _MAX_TASKS
    options.purge_offline_workers = _FORGET_WORKERS_S
    options.format_task = format_task
    options.tasks_columns = COLUMNS


def _hush() -> None:
    """Flower asks for the lengths of queues by a client of its own: it says no more on connecting than ours do."""
    theirs = broker.Redis._get_redis_client_args
    broker.Redis._get_redis_client_args = lambda client: theirs(client) | quiet()


def _check() -> None:
    has_password = bool(options.basic_auth or options.auth)
    if not has_password and not _is_loopback(options.address):
        raise BadSetting(
            f"Flower on {options.address or 'every address'} would show images to anybody: "
            "set FLOWER_BASIC_AUTH=user:password, or keep it on 127.0.0.1"
        )
    if not has_password and not options.read_only:
        raise BadSetting("whoever may stop workers must log in: set FLOWER_BASIC_AUTH=user:password")


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"

"""Where a command gets Postgres and Redis: as configured, else what runs here, else started for it."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Literal

from moderation.errors import BrokerUnavailable, ServiceMissing
from moderation.log import get_logger
from moderation.services.run_file import read_run_file
from moderation.services.shared_server import shared_server
from moderation.settings import ServiceSettings

log = get_logger(__name__)

Origin = Literal["configured", "vetline up", "started here"]


@dataclass(frozen=True, slots=True)
class Services:
    """URLs of what the command may use, passwords included, and where each came from."""

    database_url: str
    database_from: Origin
    redis: str | None = None
    redis_from: Origin | None = None

    @property
    def redis_url(self) -> str:
        """Raises BrokerUnavailable where the command did not ask for Redis."""
        if self.redis is None:
            raise BrokerUnavailable("this command asked for no Redis")
        return self.redis


@contextmanager
def resolve(*, need_redis: bool, settings: ServiceSettings | None = None) -> Iterator[Services]:
    """Services for the length of the block. Each is, in this order:

    what DATABASE_URL, and REDIS_URL or CELERY_BROKER_URL, name; what a `vetline up` in this folder announced;
    one kept in the folder `.vetline`, shared with other commands and stopped with the last of them.

    Raises ServiceMissing, in one line, where one is not configured and cannot be started.
    """
    settings = settings or ServiceSettings()
    with ExitStack() as held:
        database_url, database_from = _find("postgres", settings, held)
        redis_url, redis_from = _find("redis", settings, held) if need_redis else (None, None)
        if redis_from and (database_from == "configured") != (redis_from == "configured"):
            # Allowed, but seldom meant: workers elsewhere do not hear a Redis that runs here.
            log.warning("services_half_configured", postgres=database_from, redis=redis_from)
        yield Services(database_url, database_from, redis_url, redis_from)


def _find(
    service: Literal["postgres", "redis"], settings: ServiceSettings, held: ExitStack
) -> tuple[str, Origin]:
    configured = settings.database_url if service == "postgres" else settings.redis_url
    if configured is not None:
        return configured.get_secret_value(), "configured"
    if running := read_run_file(settings.data_dir):
        return (running.database_url if service == "postgres" else running.redis_url), "vetline up"
    return held.enter_context(shared_server(service, settings.data_dir)), "started here"


def known_services(settings: ServiceSettings | None = None) -> tuple[str, str]:
    """The URLs of Postgres and Redis, from the environment or from a `vetline up` in this folder.

    Raises ServiceMissing in one line where either is unknown.
    """
    settings = settings or ServiceSettings()
    running = read_run_file(settings.data_dir)
    database = settings.database_url.get_secret_value() if settings.database_url else None
    redis = settings.redis_url.get_secret_value() if settings.redis_url else None
    database = database or (running.database_url if running else None)
    redis = redis or (running.redis_url if running else None)
    if database is None or redis is None:
        missing = "DATABASE_URL" if database is None else "REDIS_URL"
        raise ServiceMissing(f"{missing} is not set, and no `vetline up` runs in this folder")
    return database, redis


def known_flower(settings: ServiceSettings | None = None) -> str | None:
    """Flower's address, which ends in a slash: as configured, or of the `vetline up` that this ledger is of."""
    settings = settings or ServiceSettings()
    url, running = settings.flower_url, read_run_file(settings.data_dir)
    database = settings.database_url.get_secret_value() if settings.database_url else None
    if url is None and running is not None and database in {None, running.database_url}:
        url = running.flower_url
    return url and url.rstrip("/") + "/"

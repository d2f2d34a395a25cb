"""The services that are there already, for programs that start none: a Celery worker, Flower."""

from moderation.errors import ServiceMissing
from moderation.services.announcement import announced
from moderation.settings import ServiceSettings


def known_services(settings: ServiceSettings | None = None) -> tuple[str, str]:
    """The URLs of Postgres and Redis, from the environment or from a `vetline up` in this folder.

    Raises ServiceMissing in one line where either is unknown.
    """
    settings = settings or ServiceSettings()
    running = announced(settings.data_dir)
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
    url, running = settings.flower_url, announced(settings.data_dir)
    database = settings.database_url.get_secret_value() if settings.database_url else None
    if url is None and running is not None and database in {None, running.database_url}:
        url = running.flower_url
    return url and url.rstrip("/") + "/"

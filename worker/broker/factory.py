"""A Celery app with the worker's parts in it."""

from uuid import UUID

from celery import Celery

from moderation.queue import make_app
from moderation.settings import QueueSettings
from moderation.webhook import TASK as DELIVER
from worker.broker.bootsteps import ServiceHolder, install
from worker.broker.tasks import register
from worker.events.event_batching import EventBatchingStep
from worker.service import WorkerService
from worker.settings import WorkerSettings


def make_worker_app(database_url: str, redis_url: str, settings: WorkerSettings | None = None) -> Celery:
    """An app whose worker judges images. Nothing is connected or loaded before the worker starts."""
    settings = settings or WorkerSettings()
    app = make_app(redis_url)
    app.conf.worker_concurrency = settings.threads
    urgent, _ = QueueSettings().names

    def ring_webhook(id_: UUID) -> None:
        app.send_task(DELIVER, kwargs={"webhook": str(id_)}, queue=urgent, ignore_result=True, retry=False)

    holder = ServiceHolder(
        lambda: WorkerService(database_url, redis_url, settings, ring_webhook), QueueSettings().names
    )
    install(app, holder)
    app.steps["consumer"].add(EventBatchingStep)
    register(app, holder)
    return app

"""The peer of our queue: plain Celery on Redis, with what its documentation and issue tracker advise for this broker."""

from typing import Any

from celery import Celery


def plain_celery(broker: str, **more: Any) -> Celery:
    """Late acknowledgement, reject on worker lost, prefetch 1. more: settings of one bench."""
    app = Celery("peer", broker=broker)
    app.conf.update(
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        worker_prefetch_multiplier=1,
        task_ignore_result=True,
        broker_connection_retry_on_startup=True,
        **more,
    )
    return app

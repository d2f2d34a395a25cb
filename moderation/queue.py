"""The Celery app: names and settings that producers, workers and Flower share."""

from celery import Celery
from kombu import Exchange, Queue
from kombu.connection import resolve_aliases  # type: ignore[attr-defined]  # not in kombu's stubs

from moderation.broker import read_broker
from moderation.settings import QueueSettings
from moderation.transport import RINGS, SET_ASIDE

_TRANSPORT = "moderation.transport:Transport"
# How kombu spells a URL of ours: for people, and for Flower, which asks for the lengths of queues by its scheme.
resolve_aliases[_TRANSPORT] = "redis"


def make_app(redis_url: str, settings: QueueSettings | None = None) -> Celery:
    """A Celery app on the doorbell's Redis. Sending `vetline.assess` with `uri` and `policy` submits an image.

    What is sent goes to the list of plain clients, which Celery's consumer must not read: see `worker.plain`.

    Raises BadSetting where the URL is not one.
    """
    settings = settings or QueueSettings()
    broker = read_broker(redis_url)
    app = Celery("vetline")
    app.conf.update(
        broker_url=broker.url,
        broker_use_ssl=broker.tls,
        broker_transport=_TRANSPORT,
        broker_transport_options={
            "global_keyprefix": settings.key_prefix,
            "priority_steps": [0],  # one list: the ledger rings in order of priority
            "queue_order_strategy": settings.order_strategy,
            RINGS: settings.names,
            SET_ASIDE: settings.name,
            "socket_timeout": settings.socket_timeout_s,
            "socket_connect_timeout": settings.socket_timeout_s,
            "socket_keepalive": True,
            "health_check_interval": 25,
            "client_name": "vetline",
        },
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,  # Redis away is not a reason to drop a loaded model
        broker_channel_error_retry=True,  # a full Redis refuses writes; the worker stays
        # Made as they are needed. Flower asks nine things at once, each over two: with fewer it waits for itself for ever.
        broker_pool_limit=32,
        task_queues=[
            Queue(name, Exchange(""), routing_key=name) for name in (*settings.names, settings.name)
        ],
        task_default_queue=settings.name,
        task_default_exchange="",
        task_default_routing_key=settings.name,
        task_create_missing_queues=False,
        accept_content=["json"],
        task_serializer="json",
        event_serializer="json",
        result_backend=None,
        task_ignore_result=True,  # verdicts stand in the ledger
        task_acks_late=True,  # holds the slot until the task ends, so that prefetch 1 means no message waits here
        worker_prefetch_multiplier=1,
        worker_pool="threads",
        worker_send_task_events=True,
        task_send_sent_event=False,
        worker_enable_remote_control=True,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_soft_shutdown_timeout=0,
        worker_proc_alive_timeout=30,
    )
    return app

"""The Celery app, importable as anyone would type it: `celery -A worker.app worker`, `celery -A worker.app flower`.

Reads DATABASE_URL and REDIS_URL, or finds the `vetline up` of this folder.
"""

from moderation.services.resolve import known_services
from worker.broker.factory import make_worker_app

app = make_worker_app(*known_services())
